"""Net: sockets, TLS, listeners, and the proxies in front of them."""
