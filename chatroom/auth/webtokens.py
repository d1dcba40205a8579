"""JSON Web Tokens as a source of identities.

1. A key has one algorithm, which follows from the kind of key alone. A token that names another one is
   refused, so no key is ever used as what it isn't (a public key as a secret, say), nor is `none` a choice.
2. A token is held against the key that has its `kid`, one without a `kid` against the key without one. Keys
   of different kinds may share a `kid`: then it is the one for the token's algorithm. Without such a key only
   the single key of a source will do, and only if not both of them have a name.
3. Every token costs one check of a signature, with a stand-in where there is nothing to check: how long a
   refusal takes tells nothing about its reason. Claims are read only when the signature is proven.
4. A token whose key isn't there is noted with the source of the keys: it may be a new one.

It doesn't know where keys come from, nor how a signature is checked.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from chatroom.auth.claims import Expected, read_claims
from chatroom.auth.jose import Signed, read_object, take_apart
from chatroom.auth.tokens import Identity, key_of

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

    def _match(self, token: str) -> tuple[Signed | None, Key | None]:
        """The parts of a token, and the key that may prove it."""
        try:
            signed = take_apart(token)
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
