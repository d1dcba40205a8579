"""What the page says when it is not let in: words, and no second try where there is no sense in it."""

from __future__ import annotations

from pathlib import Path

from tests.support.browser import Visit, says
from tests.support.process import ServerProcess

REFUSED = "console: Failed to load resource"


def test_a_wrong_token_is_said_and_the_form_stays_usable(visit: Visit) -> None:
    alice = visit()
    alice.enter("alice", token="wrong")
    says(alice, "This token is not valid.")
    asked = len(alice.requests)
    alice.connect("alice")
    assert asked == 2, "the page, and one question: a refused token is not tried again"
    alice.forgive(REFUSED)


def test_what_is_wrong_with_the_form_is_said(visit: Visit) -> None:
    alice = visit()
    for username, token, words in (
        ("alice", "", "Enter a token."),
        ("alice", "two words", "This token is not valid: it contains characters that no token has."),
        ("alice", "tøken", "This token is not valid: it contains characters that no token has."),
        ("x" * 33, "token-alice", "This name can't be used: username must have"),
        ("two words", "token-alice", "This name can't be used: username"),
    ):
        alice.enter(username, token=token)
        says(alice, words)
    alice.forgive(REFUSED)


def test_a_full_server_is_said_and_asked_again(visit: Visit) -> None:
    with ServerProcess("--db", "none", "--max-connections", "1") as small:
        alice = visit(small).connect("alice")
        bob = visit(small)
        bob.enter("bob")
        says(bob, "The server lets nobody in at the moment: ")
        alice.press("Leave")
        says(bob, "Connected to #general as bob.")
        bob.forgive("console: ")


def test_an_origin_that_is_not_let_in_is_said(visit: Visit) -> None:
    with ServerProcess("--db", "none", "--origin", "https://chat.example") as strict:
        alice = visit(strict).connect("alice")
        bob = visit(strict, from_file=True)
        bob.enter("bob")
        says(bob, "Origin not allowed")
        bob.forgive(REFUSED)
        alice.press("Leave")  # before its server goes: it would try to come back


def test_rights_are_said(visit: Visit, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.toml"
    tokens.write_text(
        '[[token]]\ntoken = "s3cret"\nusername = "alice"\nrooms = { general = "rw", news = "r" }\n', "utf-8"
    )
    with ServerProcess("--db", "none", "--tokens", str(tokens)) as guarded:
        alice = visit(guarded)
        alice.enter("bob", token="s3cret")
        says(alice, "You are not let in: ")
        alice.enter("", token="s3cret")
        says(alice, "Connected to #general as alice.")
        alice.switch("vault")
        says(alice, "You can't enter #vault: ")
        alice.switch("news")
        says(alice, "Connected to #news as alice.")
        alice.say("hello")
        alice.log.get_by_text("not sent: ").wait_for()
        alice.forgive(REFUSED)
        alice.press("Leave")


def test_a_handshake_that_would_be_let_in_and_yet_fails_is_said(visit: Visit) -> None:
    alice = visit()
    alice.page.route_web_socket("**/*", lambda socket: socket.close())
    alice.enter("alice")
    says(alice, "lets you in, but the connection fails. Trying again")


def test_a_server_that_is_not_there_is_said(visit: Visit) -> None:
    alice = visit(from_file=True)
    for address, words in (
        ("ws://127.0.0.1:1", "The server at ws://127.0.0.1:1/ can't be reached."),
        ("nonsense", "This is not the address of a server."),
        ("ftp://localhost", "This is not the address of a server."),
    ):
        alice.field("Server").fill(address)
        alice.field("Token").fill("token-alice")
        alice.press("Connect")
        says(alice, words)
    alice.forgive(REFUSED, "request to http://127.0.0.1:1/handshake")
