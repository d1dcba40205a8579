"""By which token a client is let in.

1. A token is in no error, and never on the command line, which everybody can read.

It doesn't know how a token reaches the server.
"""

import re

from chatroom.core.errors import StartError
from chatroom.system.files import read_file

VARIABLE = "CHATROOM_TOKEN"
_MAX_TOKEN_FILE = 64 * 1024
_TOKEN = re.compile(r"[!-~]{1,16384}")


def read_token(text: str) -> str:
    """A token that a header can hold. Raises ValueError, which doesn't repeat it."""
    if not _TOKEN.fullmatch(text):
        raise ValueError("a token is one line of visible ASCII characters")
    return text


def token_of_file(path: str) -> str:
    """The token in the file that --token-file names. Raises StartError."""
    content = read_file("--token-file", path, most=_MAX_TOKEN_FILE, kind="a file with the token")
    return _checked(f"--token-file {path}", content.decode("latin-1"))


def token_of_variable(value: str) -> str:
    """The token in the variable CHATROOM_TOKEN. Raises StartError."""
    return _checked(VARIABLE, value)


def _checked(source: str, text: str) -> str:
    try:
        return read_token(text.strip())
    except ValueError as error:
        raise StartError(f"{source}: {error}") from None
