"""JSON Web Tokens as a source of identities: taken apart, read, verified.

JSON Web Tokens as a source of identities.

1. A key has one algorithm, which follows from the kind of key alone. A token that names another one is
   refused, so no key is ever used as what it isn't (a public key as a secret, say), nor is `none` a choice.
2. A token is held against the key that has its `kid`, one without a `kid` against the key without one. Keys
   of different kinds may share a `kid`: then it is the one for the token's algorithm. Without such a key only
   the single key of a source will do, and only if not both of them have a name.
3. Every token costs one check of a signature, with a stand-in where there is nothing to check: how long a
   refusal takes tells nothing about its reason. Claims are read only when the signature is proven.
4. A token whose key isn't there is noted with the source of the keys: it may be a new one.

It doesn't know where keys come from, nor how a signature is checked.

A signed token taken apart: the compact form of RFC 7515, section 7.1.

1. There is one way to write a token: base64url without padding, white space or spare bits, and JSON objects
   without repeated keys. Anything else is a ValueError, which carries nothing of the token along.
2. The header is the sender's claim, not yet proven. Only `alg` and `kid` are read, to choose among the keys
   that are known already; a key that comes along (`jwk`, `jku`, `x5c`, `x5u`) is never looked at.
3. A `crit` of any kind is refused: no extension is understood here.

It doesn't know keys, nor what a payload means.

What a web token says once its signature is proven: the claims of RFC 7519, read strictly.

1. `sub` and `exp` are required. `sub` must be a username in its one clean form: an issuer that tells two
   accounts apart must not see them become one name here.
2. Clocks may differ by LEEWAY: a token is good so long after its `exp`, and so long before its `nbf`.
3. `exp` may be at most MOST_AHEAD ahead, and so may `iat`: nothing is good for ever.
4. Dates are numbers of seconds, not below zero, integers or with a fraction, which is cut off. A truth value
   is no number.
5. An `aud` must name the audience that is expected, and there must be one. Where none is expected, a token
   with an `aud` is meant for somebody else. An `iss` counts where one is expected.
6. Claims that are not named here mean nothing.
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

MAX_TOKEN = 8192
"""Characters. It fits into the first line of a head, and into a header."""
MAX_KID = 256

_COMPACT = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
_JSON = decoder()


@dataclass(frozen=True, slots=True)
class SignedToken:
    """What was signed, supposedly, by which algorithm and with which key."""

    algorithm: str
    kid: str | None
    payload: bytes
    signed: bytes
    signature: bytes


def parse_compact(token: str) -> SignedToken:
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
    return SignedToken(algorithm, kid, _decode(match[2]), signed, _decode(match[3]))


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


LEEWAY = 30
"""Seconds by which the clock of an issuer may be wrong."""
MOST_AHEAD = 30 * 24 * 3600
_LAST_DATE = 2**53
"""Beyond it a number with a fraction may stand for another one than it says."""


@dataclass(frozen=True, slots=True)
class Claims:
    """What was claimed, and holds at the moment."""

    username: str
    rights: Rights
    expires: int


@dataclass(frozen=True, slots=True)
class Expected:
    """For whom tokens must be, and from whom; None: for nobody in particular, from anybody with the key."""

    audience: str | None = None
    issuer: str | None = None


def read_claims(claims: Mapping[str, Any], expected: Expected, now: float) -> Claims:
    """What the claims say at `now`, in seconds since 1970; ValueError if they prove nothing."""
    expires = _read_dates(claims, now)
    _check_parties(claims, expected)
    rights = Rights.parse(claims["rooms"]) if "rooms" in claims else Rights.everything()
    return Claims(_read_subject(claims), rights, expires)


def has_expired(expires: int, now: float) -> bool:
    """Whether a token with this `exp` is good no longer."""
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


SOURCE = "jwt"
"""The source of the identities of web tokens."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key that proves signatures of its one algorithm."""

    algorithm: str
    kid: str | None
    signature_bytes: int
    check: Callable[[bytes, bytes], bool] = field(repr=False)
    """Whether the second is the signature of the first; never raises."""
    fingerprint: str = field(default="", repr=False)
    """The same for the same key, whenever it was read. It has no dot, and no business in a log."""


class KeySource(Protocol):
    """Where the keys are that count now."""

    @property
    def keys(self) -> tuple[Key, ...]:
        """The keys, at least one; always the same object while nothing changes."""

    def missed(self) -> None:
        """A token's key isn't there. Never waits, never raises."""


@dataclass(frozen=True, slots=True)
class FixedKeys:
    """Keys that stay as they are."""

    keys: tuple[Key, ...]

    def missed(self) -> None:
        """There are no others."""


class WebTokens:
    """A Verifier of signed tokens. `now` tells the seconds since 1970.

    The `key` of an identity begins with the fingerprint of the key that proved it: so what has become of it
    can be told without the token, which isn't kept.
    """

    __slots__ = ("_expected", "_now", "_source")

    unbound = 0
    """See Verifier: a web token always stands for one name."""

    def __init__(self, source: KeySource, expected: Expected, now: Callable[[], float]) -> None:
        self._source = source
        self._expected = expected
        self._now = now

    def verify(self, token: str | None) -> Identity | None:
        """The identity that `token` proves, if its signature, its dates and its claims are good."""
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
        """The same, while the key that proved it is there."""
        if identity.source != SOURCE:
            return identity
        proven_by = identity.key.partition(".")[0]
        return identity if any(key.fingerprint == proven_by for key in self._source.keys) else None

    def allows(self, identity: Identity, username: str) -> bool:
        """No name is reserved here: an issuer's names are known only when they come."""
        return identity.username in (None, username)

    def _match(self, token: str) -> tuple[SignedToken | None, Key | None]:
        """The parts of a token, and the key that may prove it."""
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
    """Rule 2. The `algorithm` is the token's; no key but one for it is ever returned."""
    named = [key for key in keys if key.kid == kid]
    if not named and len(keys) == 1 and None in (kid, keys[0].kid):
        named = [keys[0]]
    return next((key for key in named if key.algorithm == algorithm), None)
