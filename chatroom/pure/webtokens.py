"""JSON Web Tokens as a source of identities.

1. A key has one algorithm, which follows from the kind of key alone. A token that names another one is
   refused, so no key is ever used as what it isn't (a public key as a secret, say), nor is `none` a choice.
2. A token with a `kid` is held against the key of that name. Without such a key, and without a `kid`, only
   the single key of a source will do, and only if not both of them have a name.
3. Every token costs one check of a signature, with a stand-in where there is nothing to check: how long a
   refusal takes tells nothing about its reason. Claims are read only when the signature is proven.
4. A token that names a key which isn't there is noted with the source of the keys: it may be a new one.

It doesn't know where keys come from, nor how a signature is checked.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from chatroom.pure.claims import Expected, read_claims
from chatroom.pure.jose import Signed, read_object, take_apart
from chatroom.pure.tokens import Identity, key_of

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
        """A token named a key that isn't there. Never waits, never raises."""


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
        match = self._match(presented)
        if match is None:
            stand_in = self._source.keys[0]
            stand_in.check(presented.encode("utf-8", "replace"), b"\1" * stand_in.signature_bytes)
            return None
        signed, key = match
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

    def _match(self, token: str) -> tuple[Signed, Key] | None:
        """The parts of a token and the key that may prove it."""
        keys = self._source.keys
        try:
            signed = take_apart(token)
        except ValueError:
            return None
        key = _named(keys, signed.kid)
        if key is None:
            self._source.missed()
        elif (signed.algorithm, len(signed.signature)) == (key.algorithm, key.signature_bytes):
            return signed, key
        return None


def _named(keys: tuple[Key, ...], kid: str | None) -> Key | None:
    """Rule 2."""
    if kid is not None:
        for key in keys:
            if key.kid == kid:
                return key
    if len(keys) == 1 and (kid is None or keys[0].kid is None):
        return keys[0]
    return None
