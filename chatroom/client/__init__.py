"""Client: the ways to a server, for the commands that are its clients."""
