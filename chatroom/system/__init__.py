"""System: what the process is given by the operating system and its service manager."""
