"""Static tokens: who they stand for, the same work for all that are wrong, and no token comes out again."""

import hashlib
import pickle
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatroom.auth import tokens
from chatroom.auth.rights import Rights
from chatroom.auth.tokens import DEVELOPMENT_TOKENS, Identity, TokenTable, Verifier, Verifiers

SECRET = "s3cret-Token_~1"
DIGEST = hashlib.sha256(SECRET.encode()).hexdigest()


def parse(text: str | bytes) -> TokenTable:
    return TokenTable.parse(text, "tokens.toml")


def test_a_token_says_who_and_what() -> None:
    table = parse(
        f'[[token]]\ntoken = "{SECRET}"\nusername = "alice"\nrooms = {{ general = "rw", "ops-*" = "r" }}'
    )
    identity = table.verify(SECRET)
    assert identity is not None
    assert identity.username == "alice"
    assert identity.source == "static"
    assert identity.rights.can("general", "w")
    assert identity.rights.can("ops-1", "r")
    assert not identity.rights.can("ops-1", "w")
    assert not identity.rights.can("other", "r")


def test_what_is_left_out_is_any_username_and_everything() -> None:
    identity = parse(f'[[token]]\ntoken = "{SECRET}"').verify(SECRET)
    assert identity is not None
    assert identity.username is None
    assert identity.rights == Rights.everything()


def test_an_empty_table_of_rooms_is_no_rights() -> None:
    identity = parse(f'[[token]]\ntoken = "{SECRET}"\nrooms = {{}}').verify(SECRET)
    assert identity is not None
    assert not identity.rights.can("general", "r")


@pytest.mark.parametrize("digest", [DIGEST, DIGEST.upper()])
def test_a_digest_stands_for_its_token(digest: str) -> None:
    table = parse(f'[[token]]\nsha256 = "{digest}"\nusername = "bot"')
    identity = table.verify(SECRET)
    assert identity is not None
    assert identity.username == "bot"
    assert table.verify(digest) is None


def test_usernames_take_their_clean_form() -> None:
    identity = parse(f'[[token]]\ntoken = "{SECRET}"\nusername = "e\u0301ric"').verify(SECRET)
    assert identity is not None
    assert identity.username == "\u00e9ric"


def test_many_tokens_in_one_file() -> None:
    table = parse("".join(f'[[token]]\ntoken = "t{n}"\nusername = "u{n}"\n' for n in range(50)))
    for number in range(50):
        identity = table.verify(f"t{number}")
        assert identity is not None
        assert identity.username == f"u{number}"
    assert repr(table) == "<TokenTable of 50>"


@pytest.mark.parametrize(
    "token",
    [
        None,
        "",
        " ",
        SECRET + " ",
        SECRET[:-1],
        SECRET.upper(),
        "\ud800",
        "t\u00f6ken",
        "a\nb",
        "x" * 10**5,
        "\0",
    ],
)
def test_a_wrong_token_is_nobody(token: str | None) -> None:
    assert parse(f'[[token]]\ntoken = "{SECRET}"').verify(token) is None
    assert TokenTable.development().verify(token) is None


def test_a_digest_of_something_that_is_no_token_lets_nobody_in() -> None:
    odd = "two words"
    table = parse(f'[[token]]\nsha256 = "{hashlib.sha256(odd.encode()).hexdigest()}"')
    assert table.verify(odd) is None


@pytest.mark.parametrize("token", [None, "", "a b", "wrong", "\ud800", SECRET])
def test_the_work_is_the_same_whatever_is_wrong(token: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """One hash and one look-up for a missing, malformed, wrong and right token alike."""
    table = parse(f'[[token]]\ntoken = "{SECRET}"')
    steps: list[str] = []
    digest = tokens._digest

    class Counting(dict[bytes, Identity]):
        def get(self, key: bytes, default: object = None) -> Identity | None:  # type: ignore[override]
            steps.append("look up")
            return super().get(key)

    def hashing(text: str) -> bytes:
        steps.append("hash")
        return digest(text)

    table._identities = Counting(table._identities)
    monkeypatch.setattr(tokens, "_digest", hashing)
    table.verify(token)
    assert steps == ["hash", "look up"]


def test_nothing_in_memory_or_print_shows_a_token() -> None:
    table = parse(f'[[token]]\ntoken = "{SECRET}"\nusername = "alice"')
    identity = table.verify(SECRET)
    assert identity is not None
    kept = pickle.dumps(table._identities)
    assert SECRET.encode() not in kept
    for shown in (repr(table), str(table), repr(identity), str(identity)):
        assert SECRET not in shown
        assert DIGEST[:8] not in shown
        assert identity.key not in shown
    assert not DIGEST.startswith(identity.key)


def test_the_key_finds_a_token_again_in_another_table() -> None:
    before = parse(f'[[token]]\ntoken = "{SECRET}"').verify(SECRET)
    after = parse(f'[[token]]\ntoken = "x"\n[[token]]\nsha256 = "{DIGEST}"\nusername = "al"')
    same, other = after.verify(SECRET), after.verify("x")
    assert before is not None
    assert same is not None
    assert other is not None
    assert before.key == same.key != other.key


def test_a_newer_table_says_what_has_become_of_an_identity() -> None:
    old = TokenTable.parse('[[token]]\ntoken = "kept"\nusername = "alice"\n[[token]]\ntoken = "gone"', "old")
    new = TokenTable.parse('[[token]]\ntoken = "kept"\nusername = "bob"\nrooms = {}', "new")
    kept, gone = old.verify("kept"), old.verify("gone")
    assert kept is not None
    assert gone is not None
    assert new.review(kept) == new.verify("kept")
    assert new.review(gone) is None
    assert old.review(kept) == kept
    for source in ("dev", "jwt"):  # those of other sources are none of its business
        other = replace(gone, source=source)
        assert new.review(other) is other


def test_of_several_verifiers_each_judges_its_own() -> None:
    own = TokenTable.parse('[[token]]\ntoken = "own"', "file")
    gone, dev = own.verify("own"), TokenTable.development().verify("dev-token")
    assert gone is not None
    assert dev is not None
    verifiers = Verifiers([TokenTable.parse("token = []", "file"), TokenTable.development()])
    for chain in (verifiers, Verifiers([verifiers])):
        assert chain.review(gone) is None
        assert chain.review(dev) == dev
    assert Verifiers([TokenTable.development(), own]).review(gone) == gone
    assert TokenTable.development().review(replace(dev, key="other")) is None
    assert Verifiers([]).review(gone) is gone


def test_verifiers_may_be_replaced_while_they_are_in_use() -> None:
    table = TokenTable.parse('[[token]]\ntoken = "own"', "file")
    verifiers = Verifiers([table])
    verifiers.replace(iter([TokenTable.development()]))
    for _ in range(2):
        assert verifiers.verify("own") is None
        assert verifiers.verify("dev-token") is not None


def test_development_tokens_are_anybody_with_all_rights() -> None:
    table = TokenTable.development()
    assert DEVELOPMENT_TOKENS == ("token-alice", "token-bob", "token-carol", "dev-token")
    for token in DEVELOPMENT_TOKENS:
        identity = table.verify(token)
        assert identity is not None
        assert identity.username is None
        assert identity.source == "dev"
        assert identity.rights == Rights.everything()
    assert table.verify("token-dave") is None


def test_the_first_verifier_that_knows_a_token_decides_and_all_are_asked() -> None:
    asked: list[str] = []

    class Source:
        def __init__(self, name: str, *known: str) -> None:
            self.name = name
            self.known = known

        def verify(self, token: str | None) -> Identity | None:
            asked.append(self.name)
            return Identity(self.name, Rights.everything(), "test", "k") if token in self.known else None

    chain: Verifier = Verifiers([Source("one", "a", "b"), Source("two", "b", "c")])
    who = {
        token: found and found.username for token in ("a", "b", "c", "d") for found in [chain.verify(token)]
    }
    assert who == {"a": "one", "b": "one", "c": "two", "d": None}
    assert chain.verify(None) is None
    assert asked == ["one", "two"] * 5
    assert Verifiers([]).verify("a") is None


BOUND = """
[[token]]
token = "first"
username = "alice"

[[token]]
token = "second"
username = "alice"

[[token]]
token = "bobs"
username = "bob"

[[token]]
token = "free"
"""


def test_a_name_that_a_file_binds_is_reserved_for_the_tokens_bound_to_it() -> None:
    """Whatever else is asked, in whichever order: neither unbound tokens nor other sources take it."""
    table, development = TokenTable.parse(BOUND, "file"), TokenTable.development()
    verifiers = Verifiers([development, table])
    issued = Identity("alice", Rights.everything(), "jwt", "k")

    def allowed(identity: Identity | None, username: str) -> bool:
        assert identity is not None
        return verifiers.allows(identity, username)

    for token in ("first", "second"):
        assert allowed(verifiers.verify(token), "alice")
        assert not allowed(verifiers.verify(token), "bob")
        assert not allowed(verifiers.verify(token), "carol")
    assert not allowed(verifiers.verify("bobs"), "alice")
    for token in ("free", "dev-token"):
        for username, expected in (("alice", False), ("bob", False), ("Alice", True), ("carol", True)):
            assert allowed(verifiers.verify(token), username) == expected
    assert not allowed(issued, "alice")
    assert allowed(replace(issued, username="carol"), "carol")
    assert not allowed(replace(issued, username="carol"), "dave")
    verifiers.replace([development])
    assert allowed(issued, "alice")


@settings(deadline=None)
@given(st.text(alphabet=st.characters()) | st.text(alphabet="abc-token", max_size=12))
def test_any_presented_text_is_somebody_or_nobody(token: str) -> None:
    assert (TokenTable.development().verify(token) is not None) == (token in DEVELOPMENT_TOKENS)
