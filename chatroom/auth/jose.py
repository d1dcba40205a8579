"""A signed token taken apart: the compact form of RFC 7515, section 7.1.

1. There is one way to write a token: base64url without padding, white space or spare bits, and JSON objects
   without repeated keys. Anything else is a ValueError, which carries nothing of the token along.
2. The header is the sender's claim, not yet proven. Only `alg` and `kid` are read, to choose among the keys
   that are known already; a key that comes along (`jwk`, `jku`, `x5c`, `x5u`) is never looked at.
3. A `crit` of any kind is refused: no extension is understood here.

It doesn't know keys, nor what a payload means.
"""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from typing import Any

from chatroom.core.jsontext import RepeatedKey, decoder

MAX_TOKEN = 8192
"""Characters. It fits into the first line of a head, and into a header."""
MAX_KID = 256

_COMPACT = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
_JSON = decoder()


@dataclass(frozen=True, slots=True)
class Signed:
    """What was signed, supposedly, by which algorithm and with which key."""

    algorithm: str
    kid: str | None
    payload: bytes
    signed: bytes
    signature: bytes


def take_apart(token: str) -> Signed:
    """The parts of `token`; ValueError if it has another form."""
    match = _COMPACT.fullmatch(token) if len(token) <= MAX_TOKEN else None
    if match is None:
        raise ValueError("not three parts of base64url")
    header = read_object(_decode(match[1]))
    if "crit" in header:
        raise ValueError("crit: an extension that isn't understood")
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str):
        raise ValueError("alg: missing, or not a string")  # noqa: TRY004 (the token's fault)
    if "kid" in header and not (isinstance(kid, str) and len(kid) <= MAX_KID):
        raise ValueError("kid: not a string, or too long")
    signed = f"{match[1]}.{match[2]}".encode("ascii")
    return Signed(algorithm, kid, _decode(match[2]), signed, _decode(match[3]))


def read_object(source: bytes) -> dict[str, Any]:
    """The JSON object that `source` is; ValueError if it is none."""
    try:
        value = _JSON.decode(source.decode("utf-8"))
    except (ValueError, RecursionError, RepeatedKey):
        value = None
    if not isinstance(value, dict):
        raise ValueError("not a JSON object, or one with a key given twice")  # noqa: TRY004
    return value


def _decode(part: str) -> bytes:
    octets = urlsafe_b64decode(part + "=" * (-len(part) % 4))
    if urlsafe_b64encode(octets).rstrip(b"=") != part.encode("ascii"):
        raise ValueError("base64url with spare bits")
    return octets
