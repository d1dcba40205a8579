"""Tokens and the identities that they prove: the static tokens of a file, and the development tokens.

Owns the port `Verifier`, the format of a token file, and the table of its tokens. Rules:

1. No token is kept: a table holds only SHA-256 digests. An error about a file names the number of the entry
   and our own keys. No error, repr or log line repeats any other content of a file, except a room pattern,
   once it is known to be one. A `label` is meant for the log, so it can't be the token itself.
2. `verify` does the same work whatever is wrong with a token, also with a missing one: one hash of the
   presented token, then one look-up by that digest. The look-up needs no comparison in constant time. Its
   branches depend on the digest, and without knowing the token nobody can bring a digest close to a stored
   one. (Python also salts the hash of its dictionaries.)
3. A file is read as a whole or not at all. Each StartError is one line that says where and what to do.
4. Several sources of identities stand side by side as `Verifiers`. All are asked each time, and the first
   that knows the token decides. Another kind of token is one more `Verifier`.
5. A username that a table binds to tokens is reserved for these tokens. No other token may take it, whether
   it is bound to no name or comes from another source: an issuer's users may choose their names.

It doesn't know how a token was presented, which name a client asks for, or where the file comes from.
"""

import hashlib
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, Self

from chatroom.auth.rights import Rights
from chatroom.core.errors import StartError
from chatroom.core.logevents import escape
from chatroom.core.names import clean_username

STATIC = "static"
"""The source of the identities of a token file."""
DEVELOPMENT_TOKENS = ("token-alice", "token-bob", "token-carol", "dev-token")

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
"""A token of RFC 9110, section 5.6.2."""

_HEX = re.compile(r"[0-9a-fA-F]{64}")
_POSITION = re.compile(r"at (line \d+, column \d+|end of document)")
_KEYS = frozenset({"token", "sha256", "username", "rooms", "label"})
_LABEL_CHARS = 64


@dataclass(frozen=True, slots=True)
class Identity:
    """What a good token proves: the username that it is bound to (None: any), and its rights.

    `key` identifies the token without being one. It is the same for the same token whenever its table was
    made, so that a connection's token can be found in a newer table. It proves nothing, and is never logged.
    """

    username: str | None
    rights: Rights
    source: str
    key: str = field(repr=False)
    expires: int | None = None
    """When the token expires, in seconds since 1970. None: never."""
    label: str | None = None
    """The operator's name for this token in the log."""


OPERATOR = Identity(None, Rights.parse({"*": "rwm"}), "operator", "")
"""Who comes to the admin socket, where only the server's own user gets: any name, and all rights."""


class Verifier(Protocol):
    """A source of identities."""

    @property
    def unbound(self) -> int:
        """How many of its tokens let their holder take any name."""

    @property
    def moderators(self) -> int:
        """How many of its tokens are known to have the right `m` in some room."""

    def verify(self, token: str | None) -> Identity | None:
        """The identity that `token` proves, None if it proves none. Never raises, never waits.

        None stands for a token that is missing or could not be read, and must cost what a wrong one costs.
        """

    def review(self, identity: Identity) -> Identity | None:
        """The identity of a token that an older state of this source has verified. None: it is withdrawn.

        An identity of another source is returned as it is.
        """

    def allows(self, identity: Identity, username: str) -> bool:
        """Whether `identity`, of any source, may take `username`.

        It may not if it is bound to another name, or if this source reserves the name for other tokens.
        """

    def moderates(self, room: str, username: str) -> bool:
        """Whether a token that is bound to `username` is known to have the right `m` in a room."""


class Verifiers:
    """Several verifiers as one (rule 4)."""

    __slots__ = ("_sources",)

    def __init__(self, sources: Iterable[Verifier]) -> None:
        self.replace(sources)

    def replace(self, sources: Iterable[Verifier]) -> None:
        """Replace all sources, from the next token on."""
        self._sources = tuple(sources)

    @property
    def unbound(self) -> int:
        """The unbound tokens of all sources."""
        return sum(source.unbound for source in self._sources)

    @property
    def moderators(self) -> int:
        """The moderators' tokens of all sources."""
        return sum(source.moderators for source in self._sources)

    def review(self, identity: Identity) -> Identity | None:
        """The identity after the review of its source."""
        reviewed: Identity | None = identity
        for source in self._sources:
            reviewed = reviewed and source.review(reviewed)
        return reviewed

    def allows(self, identity: Identity, username: str) -> bool:
        """Whether every source allows it."""
        return all(source.allows(identity, username) for source in self._sources)

    def moderates(self, room: str, username: str) -> bool:
        """Whether any source knows such a token."""
        return any(source.moderates(room, username) for source in self._sources)

    def verify(self, token: str | None) -> Identity | None:
        """The identity of the first source that has one."""
        found = [source.verify(token) for source in self._sources]
        return next((identity for identity in found if identity is not None), None)


class TokenTable:
    """Static tokens by their digests."""

    __slots__ = ("_by_key", "_identities", "_reserved", "_source")

    def __init__(self, identities: Mapping[bytes, Identity], source: str = STATIC) -> None:
        self._source = source
        self._identities = dict(identities)
        self._by_key = {identity.key: identity for identity in identities.values()}
        self._reserved = {identity.username for identity in identities.values()} - {None}

    @property
    def unbound(self) -> int:
        """The tokens without a username."""
        return sum(identity.username is None for identity in self._identities.values())

    @property
    def moderators(self) -> int:
        """The tokens with the right `m` in some room."""
        return sum(identity.rights.moderates for identity in self._identities.values())

    @classmethod
    def development(cls) -> Self:
        """The development tokens: any username, all rights."""
        digests = [_digest(token) for token in DEVELOPMENT_TOKENS]
        known = {digest: Identity(None, Rights.everything(), "dev", _key(digest)) for digest in digests}
        return cls(known, "dev")

    @classmethod
    def parse(cls, source: bytes | str, name: str) -> Self:
        """The table of the token file `name`, in TOML. Raises StartError if the file is wrong."""
        file = f"token file {escape(name)}"
        identities: dict[bytes, Identity] = {}
        for number, entry in enumerate(_entries(source, file), 1):
            try:
                digest, identity = _read_entry(entry)
            except ValueError as error:
                raise StartError(f"{file}: token {number}: {error}") from None
            if digest in identities:
                first = 1 + list(identities).index(digest)
                raise StartError(f"{file}: token {number} is the same as token {first}; remove one of them")
            identities[digest] = identity
        return cls(identities)

    def __repr__(self) -> str:
        return f"<TokenTable of {len(self._identities)}>"

    def verify(self, token: str | None) -> Identity | None:
        """The identity of `token`, if the table has it."""
        presented = token or ""
        identity = self._identities.get(_digest(presented))
        return identity if _TOKEN.fullmatch(presented) else None

    def review(self, identity: Identity) -> Identity | None:
        """The identity of its token in this table, None if the token is gone."""
        return self._by_key.get(identity.key) if identity.source == self._source else identity

    def allows(self, identity: Identity, username: str) -> bool:
        """Whether the name is free, or reserved for this token (rule 5)."""
        if username in self._reserved:
            return (identity.source, identity.username) == (self._source, username)
        return identity.username in (None, username)

    def moderates(self, room: str, username: str) -> bool:
        """Whether one of the tokens of that name may."""
        return username in self._reserved and any(
            identity.username == username and identity.rights.can(room, "m")
            for identity in self._identities.values()
        )


def _entries(source: bytes | str, file: str) -> list[object]:
    """The elements of the array `token`, not checked yet. Raises StartError."""
    try:
        text = source if isinstance(source, str) else source.decode("utf-8-sig")
        document = tomllib.loads(text)
    except UnicodeDecodeError:
        raise StartError(f"{file}: not UTF-8; save it as UTF-8 text") from None
    except (
        ValueError,
        RecursionError,
    ) as error:  # its text may quote the file, so only the position is shown
        position = _POSITION.search(str(error))
        where = f" at {position[1]}" if position else ""
        raise StartError(f"{file}: not valid TOML{where}; correct it there") from None
    entries = document.pop("token", None)
    if document:
        raise StartError(
            f'{file}: only [[token]] tables may stand in it; write token = "…" below such a line'
        )
    if not isinstance(entries, list):
        raise StartError(
            f"{file}: no tokens in it; begin each with a line [[token]] (or write token = [] for none)"
        )
    return entries


def _read_entry(entry: object) -> tuple[bytes, Identity]:
    """The digest and the identity of one entry. Raises ValueError, which says what is wrong with it."""
    if not isinstance(entry, dict):
        raise ValueError("must be a table, begun by a line [[token]]")  # noqa: TRY004 (the file's fault)
    if not entry.keys() <= _KEYS:
        raise ValueError(
            "has a key other than token, sha256, username, rooms and label; remove or correct it"
        )
    digest = _read_digest(entry)
    username = _read_username(entry["username"]) if "username" in entry else None
    rights = Rights.parse(entry["rooms"]) if "rooms" in entry else Rights.everything()
    label = _read_label(entry["label"], digest) if "label" in entry else None
    return digest, Identity(username, rights, STATIC, _key(digest), label=label)


def _read_digest(entry: Mapping[str, object]) -> bytes:
    if ("token" in entry) == ("sha256" in entry):
        count = "both" if "token" in entry else "neither"
        raise ValueError(f"has {count} of token and sha256; give exactly one of them")
    if "token" in entry:
        token = entry["token"]
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise ValueError(
                "token must be a string of ASCII letters, digits and !#$%&'*+-.^_`|~, at least one"
            )
        return _digest(token)
    digest = entry["sha256"]
    if not isinstance(digest, str) or not _HEX.fullmatch(digest):
        raise ValueError(
            "sha256 must be a string of 64 hex digits, as printed by: printf %s TOKEN | sha256sum"
        )
    if bytes.fromhex(digest) == _digest(""):
        raise ValueError("sha256 is that of an empty token; hash a token")
    return bytes.fromhex(digest)


def _read_username(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("username must be a string")  # noqa: TRY004 (the file's fault)
    return clean_username(value)


def _read_label(value: object, digest: bytes) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= _LABEL_CHARS or not value.isprintable():
        raise ValueError(f"label must be a string of 1 to {_LABEL_CHARS} printable characters")
    if _digest(value) == digest:
        raise ValueError("label is the token itself; labels are logged: give another one")
    return value


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def key_of(token: str) -> str:
    """The `key` of an identity with this token; see Identity."""
    return _key(_digest(token))


def _key(digest: bytes) -> str:
    return hashlib.sha256(b"key of " + digest).hexdigest()[:16]
