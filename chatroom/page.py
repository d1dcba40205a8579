"""The browser client: one HTML file, served as it is.

Owns where `client.html` is found, and nothing of what is in it.

1. The built file carries the page inside the package `chatroom`, where the build puts it.
2. A source checkout has it once, at the top level beside the package.
"""

from importlib.resources import files
from pathlib import Path

_NAME = "client.html"


def load_page() -> bytes:
    """Read the page as it will be sent; `FileNotFoundError` means an incomplete installation."""
    packaged = files("chatroom").joinpath(_NAME)
    if packaged.is_file():
        return packaged.read_bytes()
    return Path(__file__).resolve().parent.parent.joinpath(_NAME).read_bytes()
