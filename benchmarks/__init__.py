"""Programs that measure the server beside others in one run. See README.md in this folder."""
