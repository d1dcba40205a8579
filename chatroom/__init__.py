"""chatroom: a self-hosted, room-based WebSocket chat server on Trio, shipped as one file."""

__version__ = "0.1.0"
