"""HTTP: the front door, the handshake, and the site behind them."""
