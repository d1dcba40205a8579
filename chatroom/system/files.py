"""Files that are read or replaced as a whole: those that somebody names, our own, and the page.

Owns the errors of reading, and where the page is. Rules:

1. A file that somebody names is never read beyond the size that makes sense for it.
2. The built file carries the page inside the package `chatroom`, where the build puts it. A source checkout
   has it once, at the top level beside the package.
3. A file is replaced by one step, so that it is whole at any moment. It isn't synced: that takes longer than
   all else that its writer does, and what it holds can be missed after a power cut.

It doesn't know what a file means.
"""

import os
from pathlib import Path

from chatroom.core.errors import StartError

_PAGE = "client.html"


def read_file(flag: str, path: str, *, most: int, kind: str) -> bytes:
    """The content of the file `path` that the option `flag` names, of at most `most` bytes. It blocks.

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


def replace_file(path: str, content: bytes, *, private: bool) -> None:
    """Have a file hold `content`; a `private` one only its owner may read. Raises OSError.

    One writer at a time: the draft has the file's name with `.new` behind it.
    """
    draft = f"{path}.new"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    with os.fdopen(os.open(draft, flags, 0o600 if private else 0o666), "wb") as file:
        file.write(content)
    os.replace(draft, path)


def load_page() -> bytes:
    """The bytes of the page. Raises FileNotFoundError if the installation is incomplete."""
    from importlib.resources import files  # noqa: PLC0415  (slow to import, and most commands have no page)

    packaged = files("chatroom").joinpath(_PAGE)
    if packaged.is_file():
        return packaged.read_bytes()
    return Path(__file__).resolve().parents[2].joinpath(_PAGE).read_bytes()
