"""Pure protocol: bytes and values in, decisions out. Never imports trio, never reads a clock."""
