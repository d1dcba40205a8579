"""Config: the options, the parsers of their values, and the settings made of them."""
