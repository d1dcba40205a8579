"""Protocol: what clients and the server say to each other in JSON, and what a client may do."""
