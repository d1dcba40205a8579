"""Core: the values that all parts speak in. It imports nothing of chatroom but itself, and never trio."""
