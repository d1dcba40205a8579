"""Engines: the port to durability and to other nodes, and its adapters."""
