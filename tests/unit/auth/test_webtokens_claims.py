"""What a proven token says, and every reason why that isn't enough."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatroom.auth.rights import Rights
from chatroom.auth.webtokens import LEEWAY, MOST_AHEAD, Expected, has_expired, read_claims, read_object
from tests.support.signing import NOW, as_json, claims

ANY = Expected()
CHAT = Expected(audience="chat")
ISSUER = Expected(issuer="https://issuer.example/")
BOTH = Expected("chat", "https://issuer.example/")


def read(expected: Expected = ANY, now: float = NOW, **more: Any) -> Any:
    return read_claims(read_object(as_json(claims(**more))), expected, now)


def test_what_is_left_out_is_everything() -> None:
    found = read()
    assert (found.username, found.rights, found.expires) == ("alice", Rights.everything(), NOW + 3600)


def test_rooms_are_as_in_the_token_file() -> None:
    rights = read(rooms={"general": "rw", "ops-*": "r", "e\u0301": "w"}).rights
    assert rights == Rights.parse({"general": "rw", "ops-*": "r", "é": "w"})
    assert not read(rooms={}).rights.can("general", "r")


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"exp": NOW - LEEWAY + 1}, ANY),
        ({"exp": NOW + MOST_AHEAD + LEEWAY}, ANY),
        ({"exp": float(NOW) + 0.5}, ANY),
        ({"nbf": NOW + LEEWAY}, ANY),
        ({"nbf": 0}, ANY),
        ({"nbf": NOW - 0.5}, ANY),
        ({"iat": NOW}, ANY),
        ({"iat": NOW + MOST_AHEAD}, ANY),
        ({"iat": 0}, ANY),
        ({"iss": "anybody", "jti": 1, "scope": {"a": None}}, ANY),
        ({"iss": 5}, ANY),
        ({"aud": "chat"}, CHAT),
        ({"aud": ["mail", "chat"]}, CHAT),
        ({"iss": "https://issuer.example/"}, ISSUER),
        ({"aud": "chat", "iss": "https://issuer.example/"}, BOTH),
        ({"sub": "éric"}, ANY),
        ({"rooms": {"general": ""}}, ANY),
    ],
)
def test_what_is_good(more: dict[str, Any], expected: Expected) -> None:
    assert read(expected, **more)


HUGE = 10**18


@pytest.mark.parametrize(
    ("more", "expected", "reason"),
    [
        ({"exp": None}, ANY, "exp: missing"),
        ({"exp": NOW - LEEWAY}, ANY, "exp: over"),
        ({"exp": 0}, ANY, "exp: over"),
        ({"exp": NOW + MOST_AHEAD + LEEWAY + 1}, ANY, "too far ahead"),
        ({"exp": HUGE}, ANY, "exp: not a date"),
        ({"exp": 1e300}, ANY, "exp: not a date"),
        ({"exp": -1}, ANY, "exp: not a date"),
        ({"exp": str(NOW + 60)}, ANY, "exp: not a date"),
        ({"exp": True}, ANY, "exp: not a date"),
        ({"exp": [NOW + 60]}, ANY, "exp: not a date"),
        ({"exp": {}}, ANY, "exp: not a date"),
        ({"nbf": NOW + LEEWAY + 1}, ANY, "nbf: not yet"),
        ({"nbf": "0"}, ANY, "nbf: not a date"),
        ({"nbf": False}, ANY, "nbf: not a date"),
        ({"nbf": -1}, ANY, "nbf: not a date"),
        ({"nbf": HUGE}, ANY, "nbf: not a date"),
        ({"iat": NOW + MOST_AHEAD + LEEWAY + 1}, ANY, "too far ahead"),
        ({"iat": "now"}, ANY, "iat: not a date"),
        ({"iat": []}, ANY, "iat: not a date"),
        ({"aud": "chat"}, ANY, "aud: meant for somebody else"),
        ({"aud": []}, ANY, "aud: meant for somebody else"),
        ({"aud": ""}, ANY, "aud: meant for somebody else"),
        ({}, CHAT, "aud: not meant for us"),
        ({"aud": []}, CHAT, "aud: not meant for us"),
        ({"aud": "chats"}, CHAT, "aud: not meant for us"),
        ({"aud": "cha"}, CHAT, "aud: not meant for us"),
        ({"aud": ["chat", 1]}, CHAT, "aud: neither"),
        ({"aud": {"chat": 1}}, CHAT, "aud: neither"),
        ({"aud": 1}, CHAT, "aud: neither"),
        ({}, ISSUER, "iss"),
        ({"iss": "https://issuer.example"}, ISSUER, "iss"),
        ({"iss": ["https://issuer.example/"]}, ISSUER, "iss"),
        ({"aud": "chat"}, BOTH, "iss"),
        ({"sub": None}, ANY, "sub"),
        ({"sub": 7}, ANY, "sub"),
        ({"sub": ["alice"]}, ANY, "sub"),
        ({"sub": ""}, ANY, "1 to 32"),
        ({"sub": "a" * 33}, ANY, "1 to 32"),
        ({"sub": "al ice"}, ANY, "spaces"),
        ({"sub": "al\nice"}, ANY, "control"),
        ({"sub": "al\u202eice"}, ANY, "."),
        ({"sub": "\ud800"}, ANY, "."),
        ({"sub": "e\u0301ric"}, ANY, "clean form"),
        ({"sub": "\uff41lice"}, ANY, "clean form"),
        ({"rooms": []}, ANY, "rooms"),
        ({"rooms": "general"}, ANY, "rooms"),
        ({"rooms": {"general": "x"}}, ANY, "rooms"),
        ({"rooms": {"general": True}}, ANY, "rooms"),
        ({"rooms": {"general": ["r"]}}, ANY, "rooms"),
        ({"rooms": {"": "r"}}, ANY, "rooms"),
        ({"rooms": {"a b": "r"}}, ANY, "rooms"),
        ({"rooms": {"é": "r", "e\u0301": "rw"}}, ANY, "given twice"),
    ],
)
def test_what_is_not(more: dict[str, Any], expected: Expected, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read(expected, **more)


def test_null_is_not_the_same_as_left_out() -> None:
    for name in ("exp", "sub", "nbf", "iat", "aud", "rooms"):
        with pytest.raises(ValueError, match=name):
            read_claims({**claims(), name: None}, ANY, NOW)


def test_a_fraction_of_a_second_is_cut_off() -> None:
    assert read(exp=NOW + 60.9).expires == NOW + 60
    assert not has_expired(NOW, NOW + LEEWAY - 0.001)
    assert has_expired(NOW, NOW + LEEWAY)


NAMES = st.sampled_from(["sub", "exp", "nbf", "iat", "aud", "iss", "rooms", "other"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(NAMES, VALUES), st.sampled_from([ANY, CHAT, ISSUER, BOTH]))
def test_whatever_is_claimed_is_read_or_a_value_error(more: dict[str, Any], expected: Expected) -> None:
    try:
        found = read_claims({**claims(), **more}, expected, NOW)
    except ValueError:
        return
    assert not has_expired(found.expires, NOW)
    assert found.expires <= NOW + MOST_AHEAD + LEEWAY
