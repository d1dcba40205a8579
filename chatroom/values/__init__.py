"""Values: what the other layers speak in. Imports nothing of chatroom but itself, and never trio."""
