"""Whose a token is: the same for all web tokens of one person, and another one for each other person."""

import json
from base64 import urlsafe_b64encode

import pytest

from chatroom.client.owner import owner_of


def web_token(claims: object, signature: str = "c2ln") -> str:
    payload = urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"eyJhbGciOiJub25lIn0.{payload}.{signature}"


ALICE = {"iss": "https://id.example", "sub": "17", "username": "alice", "exp": 1_764_000_000, "jti": "a"}


@pytest.mark.parametrize("later", [{"exp": 1_764_003_600}, {"jti": "b", "iat": 1}, {"nonce": "n"}])
def test_a_renewed_web_token_is_of_the_same_person(later: dict[str, object]) -> None:
    assert owner_of(web_token(ALICE | later, "bmV3")) == owner_of(web_token(ALICE))


@pytest.mark.parametrize("other", [{"sub": "18"}, {"username": "bob"}, {"iss": "https://other.example"}])
def test_a_web_token_of_another_person_is_not(other: dict[str, object]) -> None:
    assert owner_of(web_token(ALICE | other)) != owner_of(web_token(ALICE))


def test_any_other_token_stands_for_its_owner() -> None:
    tokens = [
        "dev-token",
        "a.b.c",
        "a.b.d",
        *(web_token({"exp": 1}, signature) for signature in ("YQ", "Yg")),
        *(web_token(["no claims"], signature) for signature in ("YQ", "Yg")),
        f"e30.{'W' * 100_000}.c2ln",
        "a.\ud800.c",
    ]
    owners = {owner_of(token) for token in tokens}
    assert len(owners) == len(tokens)
    assert owner_of("dev-token") == owner_of("dev-token")
    assert all(len(owner) == 16 for owner in owners)
