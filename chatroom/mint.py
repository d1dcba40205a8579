"""The command `token`: makes a JSON Web Token that a server with the same secret accepts.

Owns the options of the command, and the claims of the token. Rules:

1. It never makes a token that the server would refuse. Names, rights and the lifetime follow the server's
   rules.
2. Only secrets sign. Where a server has public keys, somebody else holds the private ones.
3. The key options may come from the environment, as the server's do. The claims may not.

It doesn't know how a token is signed; see `auth.keys`.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chatroom.auth.rights import Rights
from chatroom.auth.webtokens import MAX_TOKEN, MOST_AHEAD
from chatroom.config import parsers
from chatroom.config.options import OPTIONS, Option, Parser, values_of
from chatroom.core.errors import StartError
from chatroom.core.names import clean_username
from chatroom.system.stdio import print_out


def _room(text: str) -> tuple[str, str]:
    """A room, or a glob of rooms, and its rights, read as the server reads them from a token."""
    name, separator, rights = text.rpartition(":")
    if not separator:
        raise ValueError(f"{text!r} names no rights: write it like general:rw, with letters of rwm")
    (entry,) = Rights.parse({name: rights}).entries
    return entry


TOKEN_OPTIONS = (
    Option("sub", "sub", clean_username, None, "NAME", "the username that the token is bound to"),
    Option("room", "rooms", _room, None, "ROOM:RIGHTS",
           "a room or glob and letters of rwm; may be repeated; without it, everything but m", tuple),
    Option("ttl", "ttl", parsers.duration("1s", f"{MOST_AHEAD // 86400}d"), "1h", "TIME",
           "how long the token is good"),
)  # fmt: skip
_SHARED = tuple(
    option for option in OPTIONS if option.target in ("jwt_secret_file", "jwt_audience", "jwt_issuer")
)


@dataclass(frozen=True, slots=True)
class MintSettings:
    """The claims of the token, and the secret that signs it."""

    sub: str
    rooms: tuple[tuple[str, str], ...] | None
    ttl: float
    jwt_secret_file: str
    jwt_audience: str | None
    jwt_issuer: str | None


def run(arguments: Sequence[str], environ: Mapping[str, str]) -> None:
    """Print the token that the arguments ask for. Raises StartError."""
    asked = read_mint(arguments, environ)
    if isinstance(asked, str):
        print_out(asked)
    elif not print_out(f"{mint(asked, int(time.time()))}\n"):
        raise StartError("the token can't be written: see where standard output goes")


def read_mint(arguments: Sequence[str], environ: Mapping[str, str]) -> MintSettings | str:
    """Read the options of `token`, or return its help text; see `read_settings`. Raises StartError."""
    parser = Parser(
        (*TOKEN_OPTIONS, *_SHARED),
        prog="chatroom token",
        usage="./chat.pyz token --sub NAME [--room ROOM:RIGHTS]… [--ttl 1h] --jwt-secret-file FILE",
        description="Prints a JSON Web Token, signed with HS256.",
    )
    given = parser.read(arguments)
    if isinstance(given, str):
        return given
    values = values_of(TOKEN_OPTIONS, given, {}) | values_of(_SHARED, given, environ)
    for name, what in (
        ("sub", "a username: --sub alice"),
        ("jwt_secret_file", "the server's --jwt-secret-file"),
    ):
        if values[name] is None:
            raise StartError(f"token needs {what}")
    if values["rooms"] and len(dict(values["rooms"])) < len(values["rooms"]):
        raise StartError("--room: a room is given twice: give all its rights at once")
    return MintSettings(**values)


def mint(asked: MintSettings, now: int) -> str:
    """Make the token. `now` is in seconds since 1970. Raises StartError."""
    from chatroom.auth import keys  # noqa: PLC0415  (slow to import, and --help doesn't need it)

    claims: dict[str, Any] = {"sub": asked.sub, "iat": now, "exp": now + int(asked.ttl)}
    rooms = None if asked.rooms is None else dict(asked.rooms)
    for name, value in (("aud", asked.jwt_audience), ("iss", asked.jwt_issuer), ("rooms", rooms)):
        if value is not None:
            claims[name] = value
    token = keys.sign(keys.read_secret(asked.jwt_secret_file), claims)
    if len(token) > MAX_TOKEN:
        raise StartError(
            f"the token has {len(token)} characters, and a server takes {MAX_TOKEN} at most: name fewer rooms"
        )
    return token
