"""JSON Web Tokens as a source of identities: parsed (RFC 7515), read (RFC 7519) and verified.

Owns the compact form of a token, the claims that count, and the choice of the key. Rules of the form (RFC
7515, section 7.1):

1. There is one way to write a token: base64url without padding, white space or spare bits, and JSON objects
   without repeated keys. Anything else is a ValueError, which shows nothing of the token.
2. The header is the sender's claim and isn't proven. Only `alg` and `kid` are read, to choose among the known
   keys. A key in the header (`jwk`, `jku`, `x5c`, `x5u`) is never read.
3. A `crit` of any kind is refused, since no extension is understood here.

Rules of the claims (RFC 7519, section 4.1), which are read strictly:

4. `sub` and `exp` are required. `sub` must be a username in its one clean form, so that two accounts of an
   issuer never become one name here.
5. Clocks may differ by LEEWAY: a token is good so long after its `exp`, and so long before its `nbf`.
6. `exp` may be at most MOST_AHEAD ahead, and so may `iat`, so that no token is good without end.
7. Dates are numbers of seconds, not below zero. A fraction is cut off. A truth value is no number.
8. If an audience is expected, the token needs an `aud` that names it. If none is expected, a token with an
   `aud` is meant for another server. An `iss` counts if one is expected.
9. Other claims mean nothing.

Rules of the verification:

10. A key has one algorithm, which follows from its kind alone. A token that names another algorithm is
    refused. So no key is ever used as another kind (a public key as a secret, say), and `none` is never an
    algorithm.
11. A token is verified with the key of its `kid`, a token without a `kid` with the key without one. Keys of
    different kinds may share a `kid`: then the key for the token's algorithm counts. Without such a key, the
    only key of a source counts, unless both the token and the key have a `kid`.
12. Every token costs one check of a signature, with a stand-in if there is no signature to check. So the time
    of a refusal shows nothing about its reason. Claims are read only when the signature is proven.
13. A token with an unknown key is reported to the source of the keys, since the key may be new.

It doesn't know where keys come from, nor how a signature is checked.
"""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from chatroom.auth.rights import Rights
from chatroom.auth.tokens import Identity, key_of
from chatroom.core.jsontext import RepeatedKey, decoder
from chatroom.core.names import clean_username

# The form

MAX_TOKEN = 8192
"""Characters. A token of this size fits into a request line, and into a header."""
MAX_KID = 256

_COMPACT = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
_JSON = decoder()


@dataclass(frozen=True, slots=True)
class SignedToken:
    """A parsed token: the `signed` bytes, and their `signature`, which isn't verified yet."""

    algorithm: str
    kid: str | None
    payload: bytes
    signed: bytes
    signature: bytes


def parse_compact(token: str) -> SignedToken:
    """Parse a token. Raises ValueError if it has another form."""
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
    return SignedToken(algorithm, kid, _decode(match[2]), signed, _decode(match[3]))


def read_object(source: bytes) -> dict[str, Any]:
    """The JSON object in `source`. Raises ValueError if it is none."""
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


# The claims

LEEWAY = 30
"""Seconds by which the clock of an issuer may be wrong."""
MOST_AHEAD = 30 * 24 * 3600
_LAST_DATE = 2**53
"""Beyond it, floats don't represent all integers."""


@dataclass(frozen=True, slots=True)
class Claims:
    """The claims of a token that is good at the moment."""

    username: str
    rights: Rights
    expires: int


@dataclass(frozen=True, slots=True)
class Expected:
    """The audience and the issuer that tokens must name. None: no `aud` may be there, any issuer will do."""

    audience: str | None = None
    issuer: str | None = None


def read_claims(claims: Mapping[str, Any], expected: Expected, now: float) -> Claims:
    """Read the claims at `now`, in seconds since 1970. Raises ValueError if they prove nothing."""
    expires = _read_dates(claims, now)
    _check_parties(claims, expected)
    rights = Rights.parse(claims["rooms"]) if "rooms" in claims else Rights.everything()
    return Claims(_read_subject(claims), rights, expires)


def has_expired(expires: int, now: float) -> bool:
    """Whether a token with this `exp` has expired."""
    return now >= expires + LEEWAY


def _read_dates(claims: Mapping[str, Any], now: float) -> int:
    dates = {name: _read_date(name, claims[name]) for name in ("exp", "nbf", "iat") if name in claims}
    if "exp" not in dates:
        raise ValueError("exp: missing")
    if has_expired(dates["exp"], now):
        raise ValueError("exp: over")
    if max(dates["exp"], dates.get("iat", 0)) > now + MOST_AHEAD + LEEWAY:
        raise ValueError("exp or iat: too far ahead")
    if dates.get("nbf", 0) > now + LEEWAY:
        raise ValueError("nbf: not yet")
    return dates["exp"]


def _read_date(name: str, value: object) -> int:
    if type(value) not in (int, float) or not 0 <= value <= _LAST_DATE:  # type: ignore[operator]
        raise ValueError(f"{name}: not a date")
    return int(value)  # type: ignore[call-overload, no-any-return]


def _check_parties(claims: Mapping[str, Any], expected: Expected) -> None:
    audience = claims.get("aud", [])
    audiences = [audience] if isinstance(audience, str) else audience
    if not isinstance(audiences, list) or not all(isinstance(each, str) for each in audiences):
        raise ValueError("aud: neither a string nor a list of strings")
    if expected.audience is None and "aud" in claims:
        raise ValueError("aud: meant for somebody else")
    if expected.audience is not None and expected.audience not in audiences:
        raise ValueError("aud: not meant for us")
    if expected.issuer is not None and claims.get("iss") != expected.issuer:
        raise ValueError("iss: not the issuer")


def _read_subject(claims: Mapping[str, Any]) -> str:
    subject = claims.get("sub")
    if not isinstance(subject, str) or clean_username(subject) != subject:
        raise ValueError("sub: not a username, or not in its clean form")
    return subject


# The verification

SOURCE = "jwt"
"""The source of the identities of web tokens."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key that verifies signatures of its one algorithm."""

    algorithm: str
    kid: str | None
    signature_bytes: int
    check: Callable[[bytes, bytes], bool] = field(repr=False)
    """Whether the second is the signature of the first; never raises."""
    fingerprint: str = field(default="", repr=False)
    """The same for the same key, whenever it was read. It has no dot, and is never logged."""


class KeySource(Protocol):
    """The keys that are valid now."""

    @property
    def keys(self) -> tuple[Key, ...]:
        """The keys, at least one. The same object while nothing changes."""

    def missed(self) -> None:
        """A token named an unknown key. Never waits, never raises."""


@dataclass(frozen=True, slots=True)
class FixedKeys:
    """Keys that never change."""

    keys: tuple[Key, ...]

    def missed(self) -> None:
        """Nothing to do: there are no other keys."""


class WebTokens:
    """A Verifier of signed tokens. `now` returns the seconds since 1970.

    The `key` of an identity begins with the fingerprint of the key that proved it. So a review needs no
    token, and the token isn't kept.
    """

    __slots__ = ("_expected", "_now", "_source")

    unbound = 0
    moderators = 0
    """See Verifier: a web token is always bound to a username."""

    def __init__(self, source: KeySource, expected: Expected, now: Callable[[], float]) -> None:
        self._source = source
        self._expected = expected
        self._now = now

    def verify(self, token: str | None) -> Identity | None:
        """The identity that `token` proves by its signature and its claims. None if it proves none."""
        presented = token or ""
        keys = self._source.keys
        signed, key = self._match(presented)
        if signed is None or key is None:
            algorithm = None if signed is None else signed.algorithm
            stand_in = next((each for each in keys if each.algorithm == algorithm), keys[0])
            stand_in.check(presented.encode("utf-8", "replace"), b"\1" * stand_in.signature_bytes)
            return None
        if not key.check(signed.signed, signed.signature):
            return None
        try:
            claims = read_claims(read_object(signed.payload), self._expected, self._now())
        except ValueError:
            return None
        mark = f"{key.fingerprint}.{key_of(presented)}"
        return Identity(claims.username, claims.rights, SOURCE, mark, claims.expires)

    def review(self, identity: Identity) -> Identity | None:
        """The same identity while the key that proved it is valid, else None."""
        if identity.source != SOURCE:
            return identity
        proven_by = identity.key.partition(".")[0]
        return identity if any(key.fingerprint == proven_by for key in self._source.keys) else None

    def moderates(self, room: str, username: str) -> bool:
        """See Verifier. What a token allows is known when it is presented, not before."""
        return False

    def allows(self, identity: Identity, username: str) -> bool:
        """Whether the identity may take the name. No name is reserved: an issuer's names aren't known."""
        return identity.username in (None, username)

    def _match(self, token: str) -> tuple[SignedToken | None, Key | None]:
        """The parsed token, and the key that may verify it."""
        try:
            signed = parse_compact(token)
        except ValueError:
            return None, None
        key = _choose(self._source.keys, signed.kid, signed.algorithm)
        if key is None:
            self._source.missed()
        elif len(signed.signature) != key.signature_bytes:
            key = None
        return signed, key


def _choose(keys: tuple[Key, ...], kid: str | None, algorithm: str) -> Key | None:
    """The key of rule 11. Only a key for the token's `algorithm` is ever returned."""
    named = [key for key in keys if key.kid == kid]
    if not named and len(keys) == 1 and None in (kid, keys[0].kid):
        named = [keys[0]]
    return next((key for key in named if key.algorithm == algorithm), None)
