"""WebSocket: frames in and out, and the one object that touches the socket of a connection (RFC 6455)."""
