"""Web tokens prove a name, or nothing: every way to sign wrongly is tried against every kind of key."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatroom.auth.keys import key_set, public_key, secret_key
from chatroom.auth.rights import Rights
from chatroom.auth.tokens import Identity
from chatroom.auth.webtokens import LEEWAY, Expected, FixedKeys, Key, WebTokens
from tests.support.signing import (
    NOW,
    SECRET,
    as_json,
    b64,
    claims,
    jwk,
    jwks,
    private_key,
    public_pem,
    signature,
    token,
)

KINDS = ("HS256", "RSA", "P-256", "Ed25519")
ALGORITHMS = {"HS256": "HS256", "RSA": "RS256", "P-256": "ES256", "Ed25519": "EdDSA"}


@dataclass
class Keys:
    """A source of keys that counts what was missed."""

    keys: tuple[Key, ...]
    misses: int = 0

    def missed(self) -> None:
        self.misses += 1


def signer(kind: str) -> Any:
    return SECRET if kind == "HS256" else private_key(kind)


@pytest.fixture(scope="module")
def verifiers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, WebTokens]:
    """A verifier for each kind of key, made from files as a server makes them."""
    folder = tmp_path_factory.mktemp("keys")
    (folder / "secret").write_bytes(SECRET)
    keys = {"HS256": secret_key(str(folder / "secret"))}
    for kind in KINDS[1:]:
        (folder / kind).write_bytes(public_pem(private_key(kind)))
        keys[kind] = public_key(str(folder / kind))
    return {kind: WebTokens(FixedKeys((key,)), Expected(), lambda: NOW) for kind, key in keys.items()}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def verify(verifiers: dict[str, WebTokens], kind: str) -> Callable[[str | None], Any]:
    return verifiers[kind].verify


def test_a_good_token_says_who_and_what(verify: Callable[[str], Any], kind: str) -> None:
    good = token(claims(rooms={"general": "rw"}), signer(kind))
    identity = verify(good)
    assert (identity.username, identity.source, identity.expires) == ("alice", "jwt", NOW + 3600)
    assert identity.rights == Rights.parse({"general": "rw"})
    assert identity.key == verify(good).key
    assert identity.key not in good
    assert verify(token(claims(jti="2"), signer(kind))).key != identity.key
    assert verify(token(None, signer(kind), {"alg": ALGORITHMS[kind], "kid": "any", "typ": "at+jwt"}))


def forgeries(kind: str) -> dict[str, str | None]:
    """Tokens that nobody with the key has signed as they stand."""
    key, name = signer(kind), ALGORITHMS[kind]
    good = token(None, key)
    head, body, proof = good.split(".")
    other = b64(as_json(claims(sub="bob")))
    found: dict[str, str | None] = {
        "none at all": None,
        "empty": "",
        "a development token": "dev-token",
        "another payload": f"{head}.{other}.{proof}",
        "no signature": f"{head}.{body}.",
        "a signature of zeros": f"{head}.{body}.{b64(bytes(len(proof) * 3 // 4))}",
        "a short signature": f"{head}.{body}.{proof[:-4]}",
        "a long signature": f"{good}AAAA",
        "another header": f"{b64(as_json({'alg': name, 'kid': 'x'}))}.{body}.{proof}",
        "no second part": f"{head}.{proof}",
        "twice": f"{good}.{good}",
        "an expired one": token(claims(exp=NOW - LEEWAY), key),
        "no name": token(claims(sub=None), key),
        "a key twice": token(b'{"sub":"bob","sub":"alice","exp":%d}' % (NOW + 60), key),
        "exp twice": token(b'{"sub":"alice","exp":1,"exp":%d}' % (NOW + 60), key),
        "NaN": token(b'{"sub":"alice","exp":NaN}', key),
        "too large a number": token(b'{"sub":"alice","exp":1e999}', key),
        "a payload that is no object": token(b'["alice"]', key),
        "a payload that is no text": token(b"\xff\xfe", key),
        "a payload that is no JSON": token(b"alice", key),
        "a deep payload": token(b"[" * 2500 + b"]" * 2500, key),
        "a nested token": token(good.encode(), key),
        "crit": token(None, key, {"alg": name, "crit": ["exp"]}),
        "too long": token(claims(x="x" * 8192), key),
        "alg of another case": token(None, key, {"alg": name.lower()}),
        "alg twice": token(None, key, b'{"alg":"none","alg":"%s"}' % name.encode()),
        "no alg": token(None, key, {"typ": "JWT"}),
    }
    for algorithm in ("none", "None", "HS256", "HS512", "RS256", "RS384", "PS256", "ES256", "ES384", "EdDSA"):
        if algorithm != name:
            found[f"alg {algorithm}, signed with the key"] = token(None, key, {"alg": algorithm})
    unsigned = f"{b64(as_json({'alg': 'none'}))}.{body}"
    found |= {"alg none": f"{unsigned}.", "alg none, signed": f"{unsigned}.{proof}"}
    return found


FORGERIES = sorted({what for kind in KINDS for what in forgeries(kind)})


@pytest.mark.parametrize("what", FORGERIES)
def test_what_nobody_has_signed_so_proves_nothing(
    verify: Callable[[str | None], Any], kind: str, what: str
) -> None:
    forged = forgeries(kind)
    if what in forged:  # what is another algorithm for one key is the right one for the next
        assert verify(forged[what]) is None


@pytest.mark.parametrize("secret", ["pem", "pem without its last line end", "der", "x", "n", "jwk"])
def test_a_public_key_is_no_secret(verifiers: dict[str, WebTokens], kind: str, secret: str) -> None:
    """The confusion of RFC 8725, section 2.1: what everybody knows, used to sign with HS256."""
    if kind == "HS256":
        return
    key = private_key(kind)
    pem = public_pem(key)
    public = jwk(key)
    secrets = {
        "pem": pem,
        "pem without its last line end": pem.rstrip(),
        "der": b"".join(pem.splitlines()[1:-1]),
        "x": public.get("x", "x" * 32).encode(),
        "n": public.get("n", "n" * 32).encode(),
        "jwk": as_json(public),
    }
    for algorithm in ("HS256", ALGORITHMS[kind]):
        forged = token(None, secrets[secret], {"alg": algorithm})
        assert verifiers[kind].verify(forged) is None


@pytest.mark.parametrize("name", ["jwk", "jku", "x5u", "x5c", "x5t", "kid"])
def test_a_key_that_comes_along_is_not_taken(verifiers: dict[str, WebTokens], kind: str, name: str) -> None:
    stranger = b"the secret of a stranger, 32 bytes and more" if kind == "HS256" else stranger_of(kind)
    value: Any = {
        "jwk": {"kty": "oct", "k": b64(stranger)} if kind == "HS256" else jwk(stranger),
        "jku": "https://stranger.example/jwks.json",
        "x5u": "https://stranger.example/x5u",
        "x5c": ["MIIB"],
        "x5t": "AAAA",
        "kid": "../../../dev/null",
    }[name]
    forged = token(None, stranger, {"alg": ALGORITHMS[kind], name: value})
    assert verifiers[kind].verify(forged) is None
    assert verifiers[kind].verify(token(None, signer(kind), {"alg": ALGORITHMS[kind], name: value}))


def stranger_of(kind: str) -> Any:
    return private_key(kind, 2)


def test_another_key_of_the_same_kind_proves_nothing(verifiers: dict[str, WebTokens], kind: str) -> None:
    for other in KINDS:
        wrong = SECRET[::-1] if other == "HS256" else stranger_of(other)
        assert verifiers[kind].verify(token(None, wrong)) is None


@given(st.text())
def test_whatever_is_presented_proves_nothing(text: str) -> None:
    assert SECRETS.verify(text) is None


@given(st.binary(), st.binary(), st.binary())
def test_whatever_is_in_the_parts_proves_nothing(head: bytes, body: bytes, proof: bytes) -> None:
    assert SECRETS.verify(".".join(map(b64, (head, body, proof)))) is None
    assert SECRETS.verify(f"{b64(as_json({'alg': 'HS256'}))}.{b64(body)}.{b64(proof)}") is None


@given(st.data())
def test_a_token_that_was_changed_anywhere_proves_nothing(data: st.DataObject) -> None:
    good = token()
    at = data.draw(st.integers(0, len(good) - 1))
    length = data.draw(st.integers(0, 3))
    new = data.draw(st.text(max_size=3) | st.text("ABCdef019-_.", max_size=3))
    changed = good[:at] + new + good[at + length :]
    assert (SECRETS.verify(changed) is not None) == (changed == good)


@given(st.binary())
def test_a_signed_payload_of_any_bytes_is_read_or_refused(payload: bytes) -> None:
    assert SECRETS.verify(token(payload)) is None


# Which key


@dataclass
class Checks:
    """A key whose checks are counted, and which proves everything."""

    kid: str | None
    algorithm: str = "HS256"
    seen: list[tuple[bytes, bytes]] = field(default_factory=list)

    def check(self, signed: bytes, proof: bytes) -> bool:
        self.seen.append((signed, proof))
        return True

    def key(self) -> Key:
        return Key(self.algorithm, self.kid, 32, self.check)


SECRETS = WebTokens(
    FixedKeys((Key("HS256", None, 32, lambda signed, proof: signature(signed, SECRET) == proof),)),
    Expected(),
    lambda: NOW,
)


@pytest.mark.parametrize(
    ("kids", "named", "chosen", "misses"),
    [
        ([None], None, 0, 0),
        ([None], "a", 0, 0),
        (["a"], None, 0, 0),
        (["a"], "a", 0, 0),
        (["a"], "b", None, 1),
        (["a"], "", None, 1),
        (["a", "b"], "b", 1, 0),
        (["a", "b"], "c", None, 1),
        (["a", "b"], None, None, 1),
        (["a", None], None, 1, 0),
        (["a", "b", None], None, 2, 0),
        (["a", None], "b", None, 1),
        (["a", None], "a", 0, 0),
    ],
)
def test_the_key_is_the_one_that_is_named_or_the_only_one(
    kids: list[str | None], named: str | None, chosen: int | None, misses: int
) -> None:
    counted = [Checks(kid) for kid in kids]
    source = Keys(tuple(each.key() for each in counted))
    header = {"alg": "HS256"} | ({} if named is None else {"kid": named})
    identity = WebTokens(source, Expected(), lambda: NOW).verify(token(None, SECRET, header))
    assert (identity is not None) == (chosen is not None)
    assert source.misses == misses
    assert [len(each.seen) for each in counted] == [int(at == (chosen or 0)) for at in range(len(kids))]


@pytest.mark.parametrize(
    "what", [None, "", "x", "a.b", token(None, SECRET, {"alg": "none"}), token() + "AAAA", "\ud800"]
)
def test_whatever_is_wrong_costs_one_check_of_a_whole_signature(what: str | None) -> None:
    counted = Checks(None)
    verifier = WebTokens(FixedKeys((counted.key(),)), Expected(), lambda: NOW)
    assert verifier.verify(what) is None
    assert [len(proof) for _, proof in counted.seen] == [32]


def of_set(*entries: object) -> Callable[[str | None], Identity | None]:
    """What verifies by a set of these keys."""
    return WebTokens(FixedKeys(key_set(jwks(*entries), "set")), Expected(), lambda: NOW).verify


ASYMMETRIC = KINDS[1:]
MIXED = [jwk(private_key(kind), kind) for kind in ASYMMETRIC]


@pytest.mark.parametrize("kid", [*ASYMMETRIC, "x", None])
@pytest.mark.parametrize("algorithm", [*ALGORITHMS.values(), "none", "PS256"])
@pytest.mark.parametrize("kind", KINDS)
def test_in_a_set_of_several_kinds_each_key_is_held_against_its_own_algorithm_only(
    kind: str, algorithm: str, kid: str | None
) -> None:
    """Whatever a token says of itself, it counts by the key that it names and by what that key is for."""
    header = {"alg": algorithm, "kid": kid}
    if kid is None:
        del header["kid"]
    proven = of_set(*MIXED)(token(None, signer(kind), header)) is not None
    assert proven == (kid == kind and algorithm == ALGORITHMS[kind])


@pytest.mark.parametrize("kind", ASYMMETRIC)
def test_a_public_key_of_a_set_is_no_secret_for_another(kind: str) -> None:
    for secret in (public_pem(private_key(kind)), as_json(jwk(private_key(kind), kind))):
        for kid in ASYMMETRIC:
            assert of_set(*MIXED)(token(None, secret, {"alg": "HS256", "kid": kid})) is None


def test_a_secret_in_a_set_is_no_key() -> None:
    oct_key = {"kty": "oct", "k": b64(SECRET), "alg": "HS256", "kid": "s"}
    verify = of_set(oct_key, *MIXED)
    assert verify(token(None, SECRET, {"alg": "HS256", "kid": "s"})) is None
    assert verify(token(None, SECRET, {"alg": "HS256"})) is None


def test_keys_of_different_kinds_may_share_a_kid_or_have_none() -> None:
    keys = {kind: private_key(kind) for kind in ASYMMETRIC}
    shared, nameless = of_set(*[jwk(key, "k") for key in keys.values()]), of_set(*map(jwk, keys.values()))
    for kind, key in keys.items():
        good = {"alg": ALGORITHMS[kind]}
        assert shared(token(None, key, {**good, "kid": "k"}))
        assert nameless(token(None, key, good))
        assert not shared(token(None, key, good))
        assert not nameless(token(None, key, {**good, "kid": "k"}))
        for other in {*ASYMMETRIC} - {kind}:
            assert not shared(token(None, key, {"alg": ALGORITHMS[other], "kid": "k"}))


def test_a_single_key_beside_one_for_encryption_needs_no_kid() -> None:
    key = private_key("RSA")
    verify = of_set(jwk(private_key("RSA", 2), "e", use="enc"), jwk(key, "s", use="sig"))
    assert verify(token(None, key, {"alg": "RS256"}))
    assert not verify(token(None, private_key("RSA", 2), {"alg": "RS256", "kid": "e"}))


@pytest.mark.parametrize("algorithm", ["HS256", "RS256", "ES256"])
def test_a_refusal_takes_as_long_whether_its_key_is_there_or_not(algorithm: str) -> None:
    """The stand-in is of the kind that the token is for."""
    counted = [Checks("a", "RS256"), Checks("b", "ES256")]
    verifier = WebTokens(Keys(tuple(each.key() for each in counted)), Expected(), lambda: NOW)
    assert verifier.verify(token(None, SECRET, {"alg": algorithm, "kid": "x"})) is None
    assert [len(each.seen) for each in counted] == ([0, 1] if algorithm == "ES256" else [1, 0])


def test_an_identity_is_reviewed_by_the_key_that_proved_it(tmp_path: Path) -> None:
    file = tmp_path / "secret"

    def tokens_of(*entries: object, secret: bytes | None = None) -> WebTokens:
        if secret is None:
            return WebTokens(FixedKeys(key_set(jwks(*entries), "set")), Expected(), lambda: NOW)
        file.write_bytes(secret)
        return WebTokens(FixedKeys((secret_key(str(file)),)), Expected(), lambda: NOW)

    one, two = private_key("RSA"), private_key("P-256")
    other = private_key("P-256", 2)
    old = {
        "rsa": (tokens_of(jwk(one, "a")), token(None, one, {"alg": "RS256"})),
        "curve": (tokens_of(jwk(two, "a")), token(None, two, {"alg": "ES256"})),
        "secret": (tokens_of(secret=b"s" * 40), token(None, b"s" * 40)),
    }
    found = {name: verifier.verify(text) for name, (verifier, text) in old.items()}
    for verifier, kept in (
        (tokens_of(jwk(one, "renamed")), {"rsa"}),
        (tokens_of(jwk(other, "b"), jwk(two, "a")), {"curve"}),
        (tokens_of(jwk(other, "a")), set()),
        (tokens_of(secret=b"s" * 40 + b"\n"), {"secret"}),
        (tokens_of(secret=b"t" * 40), set()),
    ):
        assert {name for name, identity in found.items() if identity and verifier.review(identity)} == kept
    static = Identity("alice", Rights.everything(), "static", "k")
    assert tokens_of(secret=b"t" * 40).review(static) is static


def test_no_key_and_no_token_is_shown() -> None:
    key = Key("HS256", "a", 32, lambda *_: True)
    assert "lambda" not in repr(key)
    identity = SECRETS.verify(token())
    assert identity is not None
    assert identity.key not in repr(identity)
