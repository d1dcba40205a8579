"""Files that are read as a whole: those that an operator names, and the page.

1. No file that an operator names is read beyond the size that makes sense for it.
2. The built file carries the page inside the package `chatroom`, where the build puts it. A source checkout
   has it once, at the top level beside the package.
"""

from importlib.resources import files
from pathlib import Path

from chatroom.core.errors import StartError

_PAGE = "client.html"


def read_file(flag: str, path: str, *, most: int, kind: str) -> bytes:
    """What stands in the file that `flag` names, at most so many bytes. It blocks.

    Raises StartError, which names the file and asks for one of its `kind`.
    """
    try:
        with open(path, "rb") as file:
            source = file.read(most + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise StartError(f"{flag} {path} can't be read ({reason}): give {kind}") from None
    if len(source) > most:
        raise StartError(f"{flag} {path} is larger than {most // 1024:,} KiB: give {kind}")
    return source


def load_page() -> bytes:
    """Read the page as it will be sent; `FileNotFoundError` means an incomplete installation."""
    packaged = files("chatroom").joinpath(_PAGE)
    if packaged.is_file():
        return packaged.read_bytes()
    return Path(__file__).resolve().parents[2].joinpath(_PAGE).read_bytes()
