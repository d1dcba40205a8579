"""Connections: what one connection does, from the accepted socket to its end."""
