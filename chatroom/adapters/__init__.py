"""Adapters: the sockets, the HTTP front door and the engines behind the ports of the layers below."""
