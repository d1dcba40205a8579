"""Where a server is: the address that a person writes, and whose certificates are believed there.

    [http|https|ws|wss]://HOST[:PORT][/PATH]      IPv6 in brackets

1. A mistake may have put a token anywhere into an address. So an error repeats nothing of it, and what has
   a user, a query or a fragment is refused.
2. A host is ASCII, as it is looked up and as a certificate names it.
3. Two addresses of the same place are equal: case, a port that is the scheme's own and a slash at the end
   make no difference.
4. TLS is imported only where it is used: a command has to begin quickly.

It doesn't know how a place is reached.
"""

import re
from ipaddress import IPv6Address
from typing import TYPE_CHECKING, NamedTuple

from chatroom.core.errors import StartError

if TYPE_CHECKING:
    import ssl

Schemes = tuple[str, str]
HTTP: Schemes = ("http", "https")
WEBSOCKET: Schemes = ("ws", "wss")
"""The schemes of a place, without TLS and with it."""

_PORTS = (80, 443)
_URL = re.compile(r"([A-Za-z]+)://([^/?#]*)([^?#]*)(.*)", re.DOTALL)
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^][:]+))(?::([0-9]{1,5}))?")
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME = re.compile(rf"(?=.{{1,254}}$){_LABEL}(?:\.{_LABEL})*\.?")
_LONGEST_LABEL = 63
"""Characters of a label (RFC 1035, 2.3.4); wsproto counts a port with the one before it."""
_PATH = re.compile(r"(?:[!-$&-?A-~]|%[0-9A-Fa-f]{2})*")
_TOKEN_HINT = "CHATROOM_TOKEN or --token-file give the token"  # noqa: S105  (no token)


class Place(NamedTuple):
    """Where a server is: at a host and port, below a path; or at the Unix socket `unix`.

    `port` is None if it is the scheme's own.
    """

    host: str = "localhost"
    port: int | None = None
    path: str = ""
    secure: bool = False
    unix: str | None = None
    schemes: Schemes = HTTP

    @property
    def address(self) -> tuple[str, int]:
        """The host and the port to connect to."""
        return self.host, self.port or _PORTS[self.secure]

    @property
    def bracketed_host(self) -> str:
        """The host as it stands before a port."""
        return f"[{self.host}]" if ":" in self.host else self.host

    @property
    def authority(self) -> str:
        """The host, and the port if it isn't the scheme's own, as in the header `Host` (RFC 9110, 7.2)."""
        return self.bracketed_host if self.port is None else f"{self.bracketed_host}:{self.port}"

    @property
    def shown(self) -> str:
        """The place as a person may have written it."""
        if self.unix is not None:
            return f"unix:{self.unix}"
        return f"{self.schemes[self.secure]}://{self.authority}{self.path}"


def read_url(text: str, *, schemes: Schemes) -> Place:
    """The place that an address names. For WebSocket the schemes of HTTP mean the same.

    Raises ValueError, which repeats nothing of the text (rule 1).
    """
    found = _URL.fullmatch(text)
    scheme = found[1].lower() if found else ""
    if found is None or scheme not in {*HTTP, *schemes}:
        raise ValueError(
            f"no address of a server: write it like {schemes[1]}://chat.example or {schemes[0]}://localhost:3000"
        )
    _, authority, path, rest = found.groups()
    if "@" in authority + path:
        raise ValueError(f"an address has no user and no @ here: {_TOKEN_HINT}")
    if rest:
        names = "--room and --username say where, and " if schemes == WEBSOCKET else ""
        raise ValueError(f"an address has no query or fragment here: {names}{_TOKEN_HINT}")
    if not _PATH.fullmatch(path):
        raise ValueError("the path of an address is percent-encoded ASCII")
    secure = scheme in ("https", "wss")
    host, port = _read_host(authority)
    place = Place(host, None if port == _PORTS[secure] else port, path.rstrip("/"), secure, schemes=schemes)
    if schemes == WEBSOCKET and len(place.authority.rpartition(".")[2]) > _LONGEST_LABEL:
        raise ValueError("the last part of a host's name is too long beside its port: write the whole name")
    return place


def _read_host(authority: str) -> tuple[str, int | None]:
    """The host and the port. Raises ValueError."""
    if not authority.isascii():
        raise ValueError("the host of an address is ASCII: write a name in other letters as xn--…")
    found = _HOST.fullmatch(authority)
    if found is None:
        raise ValueError("an address begins with HOST or HOST:PORT, IPv6 in brackets")
    six, name, digits = found.groups()
    port = None if digits is None else int(digits)
    if port is not None and not 0 < port <= 65535:
        raise ValueError("the port of an address is a number from 1 to 65535")
    if six is not None:
        try:
            return str(IPv6Address(six)), port
        except ValueError:
            raise ValueError("what stands in brackets is no IPv6 address") from None
    if not _NAME.fullmatch(name):
        raise ValueError("the host of an address is a name of letters, digits, dots and hyphens, or an IP")
    return name.lower(), port


def trusting(ca: str | None) -> "ssl.SSLContext":
    """What checks certificates, by authorities in the PEM file `ca` or the system's. Raises StartError."""
    import ssl  # noqa: PLC0415  (rule 4)

    try:
        return ssl.create_default_context(cafile=ca)
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
        raise StartError(f"--ca {ca} can't be used ({reason}): give a PEM file of certificates") from None
