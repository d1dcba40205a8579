"""HTTP as the server's own layers see it: one vetted request, one complete answer.

These values decide nothing. They don't know sockets, nor how a head is parsed.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

HOST = re.compile(r"([A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{0,5})?")
"""A host and its port, as the Host header has them."""


@dataclass(frozen=True, slots=True)
class Peer:
    """The peer that asks: `address` as the counts and logs name it.

    `exempt` is true for peers by loopback or Unix socket, which the limits per address don't count, unless
    they are proxies that ask for somebody else.
    """

    address: str
    exempt: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """A request whose head has been parsed and vetted.

    Header names are lower case, values are stripped Latin-1 text; `path` and `query` are the raw,
    still percent-encoded ASCII parts of the target; `secure` says that the connection is one by TLS.
    `public_origins` are the server's own origins as a trusted proxy names them, empty where none does.
    """

    method: str
    path: str
    query: str
    headers: tuple[tuple[str, str], ...]
    http_version: str
    peer: Peer
    secure: bool = False
    public_origins: tuple[str, ...] = ()
    _values: dict[str, list[str]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        values: dict[str, list[str]] = {}
        for name, value in self.headers:
            if name in values:
                values[name].append(value)
            else:
                values[name] = [value]
        object.__setattr__(self, "_values", values)

    @property
    def repeats(self) -> bool:
        """Whether any header comes twice."""
        return len(self._values) < len(self.headers)

    def values(self, name: str) -> Sequence[str]:
        """All values of the header `name` (lower case), in the order they came."""
        return self._values.get(name, ())


@dataclass(frozen=True, slots=True)
class Response:
    """A complete answer. The front door adds Date, Content-Length and the headers that all share."""

    status: int
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()
