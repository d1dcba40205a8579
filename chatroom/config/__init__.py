"""Config: options, how their values are read, and the settings that they give."""
