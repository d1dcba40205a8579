"""System: standard descriptors, signals, files and the service manager."""
