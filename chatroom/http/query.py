"""What a handshake asks for: the parameters of its query, and the token however it was presented.

Rules:

1. A parameter is known by its percent-decoded name. An empty one counts as left out, an unknown one is
   ignored, whatever it holds. `+` is a plus sign.
2. A token is presented by the parameter `token`, by `Authorization: Bearer T`, by `Chatroom-Token: T`, or by
   the subprotocols `chatroom.v1, bearer.T` together. Proxies claim Authorization for themselves, or strip it.
   So the page, which can't set subprotocols for its question at `/handshake`, uses the header of our own.
   The token must be the same each time; an empty one counts as not presented, and so does an Authorization
   of any other scheme, which may be meant for a proxy on the way.
3. Whatever is wrong inside a token's value looks like a missing token: the answer to both is 401.
4. The other values are decoded only when they are asked for: a wrong token is refused before a bad name.
   Bytes that are no UTF-8 and broken escapes are refused, never replaced.

It doesn't know who may do what, or which tokens are good.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

from chatroom.core.errors import Refusal
from chatroom.core.http import Request
from chatroom.core.names import clean_room, clean_username

SUBPROTOCOL = "chatroom.v1"
"""The one WebSocket subprotocol that the server speaks."""

TOKEN_HEADER = "chatroom-token"  # noqa: S105 - a name, no secret
"""A header that holds nothing but a token: no proxy on the way claims it."""

DEFAULT_ROOM = "general"
HIGHEST_ID = 2**63 - 1
"""A `since` above this is taken as this: both are beyond the last id of any room."""

_BEARER = "bearer."
_KNOWN = frozenset({"token", "username", "room", "since", "epoch"})
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_DIGITS = re.compile(r"[0-9]+")


@dataclass(frozen=True, slots=True)
class Wish:
    """Where a connection wants to go. `username` is None where the token's own name, or none, will do.

    `since` and `epoch` are both there or both None.
    """

    username: str | None
    room: str
    since: int | None = None
    epoch: str | None = None


@dataclass(frozen=True, slots=True)
class Query:
    """The parameters, each given once at most. `token` is None if it is missing or can't be one."""

    token: str | None = field(repr=False)
    _raw: Mapping[str, str] = field(repr=False)

    def wish(self) -> Wish:
        """The names and the place to resume from. Raises Refusal 400 for what can't be one."""
        username = self._value("username")
        room = self._value("room")
        since = self._value("since")
        epoch = self._value("epoch")
        return Wish(
            None if username is None else _clean(clean_username, username),
            DEFAULT_ROOM if room is None else _clean(clean_room, room),
            *_resume(since, epoch),
        )

    def _value(self, name: str) -> str | None:
        raw = self._raw.get(name)
        if raw is None:
            return None
        value = _decode(raw)
        if value is None:
            raise Refusal(400, f"Parameter {name} is not percent-encoded UTF-8")
        return value


def read_query(request: Request, subprotocols: tuple[str, ...] = ()) -> Query:
    """The query of a handshake that offers `subprotocols`.

    Raises Refusal 400 for a known parameter given twice, and for tokens that contradict each other.
    """
    raw: dict[str, str] = {}
    for pair in request.query.split("&"):
        key, _, value = pair.partition("=")
        name = _decode(key)
        if name not in _KNOWN or not value:
            continue
        if name in raw:
            raise Refusal(400, f"Parameter {name} given twice")
        raw[name] = value
    presented = set(_presented_tokens(request, raw.pop("token", ""), subprotocols))
    if len(presented) > 1:
        raise Refusal(400, "Contradictory tokens")
    return Query(presented.pop() if presented else None, raw)


def _presented_tokens(request: Request, raw: str, subprotocols: tuple[str, ...]) -> Iterator[str | None]:
    """Each token presented; None for one that can't be a token."""
    if raw:
        yield _token(_decode(raw))
    for value in request.values("authorization"):
        scheme, _, token = value.partition(" ")
        if scheme.lower() == "bearer" and token:
            yield _token(token.strip(" "))
    for value in request.values(TOKEN_HEADER):
        if value:
            yield _token(value)
    if SUBPROTOCOL in subprotocols:
        for name in subprotocols:
            if name.startswith(_BEARER) and name != _BEARER:
                yield _token(name.removeprefix(_BEARER))


def _token(text: str | None) -> str | None:
    return text if text is not None and _TOKEN.fullmatch(text) else None


def _decode(raw: str) -> str | None:
    """The text that `raw` percent-encodes; None if an escape is broken or the bytes are no UTF-8."""
    if _BROKEN_ESCAPE.search(raw):
        return None
    try:
        return unquote_to_bytes(raw).decode("utf-8")
    except UnicodeDecodeError:
        return None


def _clean(clean: Callable[[str], str], raw: str) -> str:
    try:
        return clean(raw)
    except ValueError as error:
        raise Refusal(400, f"Bad name: {error}") from None


def _resume(since: str | None, epoch: str | None) -> tuple[int | None, str | None]:
    if since is None:
        return None, None
    if not _DIGITS.fullmatch(since):
        raise Refusal(400, "since must be a non-negative integer")
    if epoch is None:
        raise Refusal(400, "since needs an epoch")
    digits = since.lstrip("0")
    # Python refuses to read integers of some thousand digits; this one need not be read.
    return (HIGHEST_ID if len(digits) > len(str(HIGHEST_ID)) else min(int(digits or "0"), HIGHEST_ID)), epoch
