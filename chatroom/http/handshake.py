"""The WebSocket handshake (RFC 6455, section 4.2): its parameters, its form, and the order of its refusals.

Owns the paths and methods that are served, the query of a handshake, and the order of refusals. Rules:

1. Refusals come in one order, whatever else is wrong: 503 draining, path and method, form of head and
   upgrade (`route`); then parameters given twice, 403 Origin, 429 address, 401, 400 names, 403 rights
   (`vet`); then 403 banned, 429 username, 503 full, which the site decides. `GET /handshake` goes the same
   way.
2. `Upgrade: websocket` asks for a handshake, and so does a `Sec-WebSocket-Key`. Then the handshake must be
   complete. An offer to upgrade to another protocol is ignored.
3. A header that makes sense only once is refused when it comes twice, even with the same value.
   `Sec-WebSocket-Protocol` may be repeated, and the lists are joined.
4. Of the client's handshake, the WebSocket library gets nothing but the key. The rest is rebuilt in plain
   ASCII.
5. A parameter is known by its percent-decoded name. An empty one counts as left out, and an unknown one is
   ignored, whatever it holds. `+` is a plus sign.
6. A token is presented by the parameter `token`, by `Authorization: Bearer T`, by `Chatroom-Token: T`, or by
   the subprotocols `chatroom.v1, bearer.T` together. Proxies use Authorization for themselves, or strip it.
   The page can't set subprotocols for `GET /handshake`, so it uses our own header. The token must be the same
   each time. An empty one counts as not presented. So does an Authorization of any other scheme, which may be
   meant for a proxy on the way.
7. A malformed token is treated like a missing one: the answer to both is 401.
8. The other values are decoded only when they are needed, so a wrong token is refused before a bad name.
   Bytes that are no UTF-8 and broken escapes are refused, never replaced.

It doesn't know tokens, rights or counts: an AdmissionPolicy does.
"""

import base64
import binascii
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar
from urllib.parse import unquote_to_bytes

from chatroom.core.errors import Refusal
from chatroom.core.http import HOST, Peer, Request, Response
from chatroom.core.names import clean_room, clean_username
from chatroom.http.exchange import has_body, members

# The query

SUBPROTOCOL = "chatroom.v1"
"""The one WebSocket subprotocol that the server speaks."""

TOKEN_HEADER = "chatroom-token"  # noqa: S105 - a name, no secret
"""A header that holds nothing but a token, and that no proxy on the way uses for itself."""

DEFAULT_ROOM = "general"
HIGHEST_ID = 2**63 - 1
"""A `since` above this counts as this: both are beyond the last id of any room."""

_BEARER = "bearer."
KNOWN = frozenset({"token", "username", "room", "since", "epoch"})
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_DIGITS = re.compile(r"[0-9]+")


@dataclass(frozen=True, slots=True)
class JoinRequest:
    """The room that a client asks to join, and its username. None: the name of its token, or the default.

    `since` and `epoch` say where the client resumes. They are both there or both None.
    """

    username: str | None
    room: str
    since: int | None = None
    epoch: str | None = None


@dataclass(frozen=True, slots=True)
class Query:
    """The parameters of a handshake. `token` is None if it is missing or malformed."""

    token: str | None = field(repr=False)
    _raw: Mapping[str, str] = field(repr=False)

    def join_request(self) -> JoinRequest:
        """The names, and where the client resumes. Raises Refusal 400 for a value that is none."""
        username = self.username()
        room = self.value("room")
        since, epoch = self.resume()
        return JoinRequest(username, DEFAULT_ROOM if room is None else clean(clean_room, room), since, epoch)

    def username(self) -> str | None:
        """The username that is asked for. Raises Refusal 400."""
        raw = self.value("username")
        return None if raw is None else clean(clean_username, raw)

    def resume(self) -> tuple[int | None, str | None]:
        """`since` and `epoch`, both or neither. Raises Refusal 400."""
        since, epoch = self.value("since"), self.value("epoch")
        if since is None:
            return None, None
        number = read_number("since", since)
        if epoch is None:
            raise Refusal(400, "since needs an epoch")
        return number, epoch

    def value(self, name: str) -> str | None:
        """The value of a parameter; None if it is left out. Raises Refusal 400."""
        raw = self._raw.get(name)
        if raw is None:
            return None
        value = decode(raw)
        if value is None:
            raise Refusal(400, f"Parameter {name} is not percent-encoded UTF-8")
        return value


def read_query(request: Request, subprotocols: tuple[str, ...] = (), known: frozenset[str] = KNOWN) -> Query:
    """The query of a request that offers `subprotocols`, and whose parameters are `known`.

    Raises Refusal 400 for a known parameter given twice, and for different tokens.
    """
    raw: dict[str, str] = {}
    for pair in request.query.split("&") if request.query else ():
        key, _, value = pair.partition("=")
        name = decode(key)
        if name not in known or not value:
            continue
        if name in raw:
            raise Refusal(400, f"Parameter {name} given twice")
        raw[name] = value
    presented = set(_presented_tokens(request, raw.pop("token", ""), subprotocols))
    if len(presented) > 1:
        raise Refusal(400, "Contradictory tokens")
    return Query(presented.pop() if presented else None, raw)


def _presented_tokens(request: Request, raw: str, subprotocols: tuple[str, ...]) -> Iterator[str | None]:
    """Each token that the request presents, None for a malformed one."""
    if raw:
        yield _token(decode(raw))
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


def decode(raw: str) -> str | None:
    """The text that `raw` percent-encodes. None if an escape is broken or the bytes are no UTF-8."""
    if "%" not in raw:
        return raw  # a target is ASCII
    if _BROKEN_ESCAPE.search(raw):
        return None
    try:
        return unquote_to_bytes(raw).decode("utf-8")
    except UnicodeDecodeError:
        return None


def clean(clean_name: Callable[[str], str], raw: str) -> str:
    """The clean form of a name. Raises Refusal 400."""
    try:
        return clean_name(raw)
    except ValueError as error:
        raise Refusal(400, f"Bad name: {error}") from None


def read_number(name: str, text: str) -> int:
    """A number of digits only; what is beyond HIGHEST_ID counts as that. Raises Refusal 400."""
    if not _DIGITS.fullmatch(text):
        raise Refusal(400, f"{name} must be a non-negative integer")
    digits = text.lstrip("0")
    # Python refuses to parse integers of some thousand digits, and this one needs no parsing.
    return HIGHEST_ID if len(digits) > len(str(HIGHEST_ID)) else min(int(digits or "0"), HIGHEST_ID)


# The head

HANDSHAKE_PATH = "/handshake"
"""The path at which a browser asks whether its handshake would be accepted."""

METRICS_PATH = "/metrics"

PATHS = frozenset({"/", HANDSHAKE_PATH, "/healthz", "/readyz", METRICS_PATH})
"""All paths that are served."""

METHODS = ("GET", "HEAD", "OPTIONS")
"""The methods of each of PATHS. Load balancers probe by OPTIONS."""

CORS_HEADERS = (
    ("Access-Control-Allow-Origin", "*"),
    ("Access-Control-Expose-Headers", "Retry-After"),
)
"""The headers by which a page of any origin may read the answers of HANDSHAKE_PATH, refusals included."""

PREFLIGHT = Response(
    204,
    headers=(
        ("Access-Control-Allow-Methods", "GET, HEAD"),
        ("Access-Control-Allow-Headers", "Authorization"),
        ("Access-Control-Max-Age", "600"),
    ),
)
"""The answer to `OPTIONS` for HANDSHAKE_PATH."""

OPTIONS_ANSWER = Response(204, headers=(("Allow", ", ".join(METHODS)),))
"""The answer to `OPTIONS` for the other paths."""

_VERSION = "13"
SINGLE = (
    "host",
    "content-length",
    "transfer-encoding",
    "upgrade",
    "sec-websocket-key",
    "sec-websocket-version",
    "authorization",
    "origin",
)
_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://([^/?#@\s]+)")
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


@dataclass(frozen=True, slots=True)
class Upgrade:
    """A well-formed WebSocket handshake: its key, and the subprotocols that it offers."""

    key: str
    subprotocols: tuple[str, ...] = ()


def route(request: Request, *, draining: bool, paths: frozenset[str] = PATHS) -> Upgrade | None:
    """The upgrade that the request asks for, or None for a plain GET, HEAD or OPTIONS of one of `paths`.

    Raises Refusal: the first half of the order of refusals.
    """
    upgrading = asks_upgrade(request)
    preflight = request.method == "OPTIONS" and not upgrading
    if draining and (upgrading or request.path == HANDSHAKE_PATH) and not preflight:
        raise Refusal(503, "Restarting", (("Retry-After", "5"),))
    _check_path_and_method(request, paths, upgrading)
    check_form(request)
    return _read_upgrade(request) if upgrading else None


def asks_upgrade(request: Request) -> bool:
    """The request is meant as a WebSocket handshake, complete or not."""
    return "websocket" in members(request, "upgrade") or bool(request.values("sec-websocket-key"))


def allowed_origin(request: Request, origins: frozenset[str] | None) -> bool:
    """The request has no Origin, or the server's own, or one of `origins` (None: any)."""
    given = request.values("origin")
    if origins is None or not given:
        return True
    origin = normal_origin(given[0])
    if origin is None:
        return False
    scheme = "https" if request.secure else "http"
    own = request.public_origins or [f"{scheme}://{host}" for host in request.values("host")]
    return origin in {normal_origin(each) for each in (*own, *origins)}


def normal_origin(text: str) -> str | None:
    """The form in which origins are compared: `null`, or scheme and host in lower case, no default port.

    None if `text` is no origin.
    """
    lowered = text.lower()
    if lowered == "null":
        return lowered
    match = _ORIGIN.fullmatch(lowered)
    if match is None:
        return None
    scheme, authority = match.groups()
    return f"{scheme}://{authority.removesuffix(_DEFAULT_PORTS.get(scheme, ':')).removesuffix(':')}"


def canonical(upgrade: Upgrade) -> bytes:
    """The handshake that the WebSocket library gets instead of the client's own (rule 4)."""
    offered = SUBPROTOCOL in upgrade.subprotocols
    lines = (
        "GET / HTTP/1.1",
        "Host: localhost",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {upgrade.key}",
        f"Sec-WebSocket-Version: {_VERSION}",
        *((f"Sec-WebSocket-Protocol: {SUBPROTOCOL}",) if offered else ()),
        "\r\n",
    )
    return "\r\n".join(lines).encode("ascii")


def _check_path_and_method(request: Request, paths: frozenset[str], upgrading: bool) -> None:
    if request.path not in paths or (upgrading and request.path != "/"):
        raise Refusal(404, "Not Found")
    if request.method not in (("GET",) if upgrading else METHODS):
        raise Refusal(405, "Method Not Allowed", (("Allow", "GET" if upgrading else ", ".join(METHODS)),))


def check_form(request: Request, singles: tuple[str, ...] = SINGLE) -> None:
    """Raises Refusal 400 for one of `singles` that comes twice, and for a bad Host or length."""
    if request.repeats:
        for name in singles:
            if len(request.values(name)) > 1:
                raise Refusal(400, f"Header {name} given twice")
    for host in request.values("host"):
        if not HOST.fullmatch(host):
            raise Refusal(400, "Bad Host")
    lengths = request.values("content-length")
    for length in lengths:
        if not _DIGITS.fullmatch(length):
            raise Refusal(400, "Bad Content-Length")
    if lengths and request.values("transfer-encoding"):
        raise Refusal(400, "Both Content-Length and Transfer-Encoding")


def _read_upgrade(request: Request) -> Upgrade:
    if request.http_version == "1.0":
        raise Refusal(505, "A WebSocket needs HTTP/1.1")
    if has_body(request) or request.values("expect"):
        raise Refusal(400, "A handshake has no body")
    if "websocket" not in members(request, "upgrade"):
        raise Refusal(400, "Upgrade: websocket is missing")
    if "upgrade" not in members(request, "connection"):
        raise Refusal(400, "Connection: Upgrade is missing")
    _check_version(request.values("sec-websocket-version"))
    keys = request.values("sec-websocket-key")
    if not keys or not _is_key(keys[0]):
        raise Refusal(400, "Sec-WebSocket-Key must be 16 bytes in base64")
    return Upgrade(keys[0], _read_subprotocols(request))


def _check_version(versions: Sequence[str]) -> None:
    if not versions:
        raise Refusal(400, "Sec-WebSocket-Version is missing")
    if versions[0] != _VERSION:
        headers = (("Sec-WebSocket-Version", _VERSION), ("Upgrade", "websocket"), ("Connection", "Upgrade"))
        raise Refusal(426, f"Only version {_VERSION} of the WebSocket protocol is spoken here", headers)


def _is_key(key: str) -> bool:
    try:
        return len(base64.b64decode(key, validate=True)) == 16
    except (binascii.Error, ValueError):
        return False


def _read_subprotocols(request: Request) -> tuple[str, ...]:
    members = (part.strip(" \t") for part in ",".join(request.values("sec-websocket-protocol")).split(","))
    names = tuple(member for member in members if member)
    # A malformed token is refused later, by 401: it is no fault of the head's form.
    if not all(_TOKEN.fullmatch(name) or name.startswith("bearer.") for name in names):
        raise Refusal(400, "Malformed Sec-WebSocket-Protocol")
    if len(set(names)) != len(names):
        raise Refusal(400, "Subprotocol offered twice")
    return names


# Admission

Identity = TypeVar("Identity")


class AdmissionPolicy(Protocol[Identity]):
    """The steps of `vet` that depend on more than the request."""

    @property
    def origins(self) -> frozenset[str] | None:
        """The browser origins that are allowed beside the server's own; None for any."""

    def check_address(self, peer: Peer) -> None:
        """Raises Refusal 429 if too many connections come from the peer's address."""

    def authenticate(self, peer: Peer, token: str | None) -> Identity:
        """The identity that the token proves.

        Raises Refusal 401 for a wrong or missing token, with the same answer in the same time; 429 instead if
        too many wrong tokens came from the peer's address.
        """

    def authorize(self, identity: Identity, join_request: JoinRequest) -> str:
        """The connection's username. Raises Refusal 403 without the right to that name or to the room."""


@dataclass(frozen=True, slots=True)
class Vetted(Generic[Identity]):
    """A request whose client may have what it asks for, unless it is banned or no slot is free."""

    peer: Peer
    identity: Identity
    username: str
    join_request: JoinRequest


def vet(request: Request, upgrade: Upgrade | None, policy: AdmissionPolicy[Identity]) -> Vetted[Identity]:
    """Take the steps of `policy` in their order.

    `upgrade` is None for HANDSHAKE_PATH. Raises Refusal: the second half of the order of refusals, up to 403.
    """
    query = read_query(request, upgrade.subprotocols if upgrade else ())
    identity = identify(request, query, policy)
    join_request = query.join_request()
    username = policy.authorize(identity, join_request)
    return Vetted(request.peer, identity, username, join_request)


def identify(request: Request, query: Query, policy: AdmissionPolicy[Identity]) -> Identity:
    """The steps up to the identity. Raises Refusal 403, 429, 401."""
    if not allowed_origin(request, policy.origins):
        raise Refusal(403, "Origin not allowed")
    policy.check_address(request.peer)
    return policy.authenticate(request.peer, query.token)
