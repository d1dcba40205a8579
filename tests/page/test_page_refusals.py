"""What the page says when it is not let in: words, and no second try where there is no sense in it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.browser import Visit, Visitor, says, stop_clock
from tests.support.process import ServerProcess

if TYPE_CHECKING:
    from playwright.sync_api import Route

REFUSED = "console: Failed to load resource"
WAIT = 50_000
"""Milliseconds that a server asks for before the next try."""


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
        ("alice", "two words", "This token is not valid."),
        ("alice", "tøken", "This token is not valid."),
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
        says(bob, "The server can't let you in at the moment: ")
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
        ("ws://127.0.0.1:1", "The server can't be reached. Trying again"),
        ("nonsense", "This is not the address of a server."),
        ("ftp://localhost", "This is not the address of a server."),
    ):
        alice.field("Server").fill(address)
        alice.field("Token").fill("token-alice")
        alice.press("Connect")
        says(alice, words)
    alice.forgive(REFUSED, "request to http://127.0.0.1:1/handshake")
    alice.overlook("request to ws://127.0.0.1:1/", "console: WebSocket connection to 'ws://127.0.0.1:1/")


def answers(visitor: Visitor, *given: tuple[int, str, dict[str, str]]) -> list[str]:
    """The handshake is asked for, and answered so, once each; the addresses that were asked."""
    asked: list[str] = []

    def answer(route: Route) -> None:
        status, body, headers = given[min(len(asked), len(given) - 1)]
        asked.append(route.request.url)
        route.fulfill(status=status, body=body, headers=headers)

    visitor.page.route("**/handshake?*", answer)
    return asked


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (400, "Bad name: room must not be empty", "This name can't be used: room must not be empty"),
        (400, "Contradictory tokens", "You are not let in: Contradictory tokens"),
        (401, "Unauthorized", "This token is not valid."),
        (403, "No right to this room", "You are not let in: No right to this room"),
        (403, "", "You are not let in: 403."),
        (404, "Not Found", "There is something else at "),
        (405, "Method Not Allowed", "You are not let in: Method Not Allowed"),
        (200, "<html>", "Something in front of the server asks for a login."),
        (200, "hello", "There is something else at "),
        (401, "<!DOCTYPE html>Log in", "Something in front of the server asks for a login."),
        (403, "<!DOCTYPE html>Log in", "Something in front of the server asks for a login."),
        (404, "<!DOCTYPE html>Not here", "There is something else at "),
    ],
)
def test_what_is_final_is_said_and_not_tried_again(visit: Visit, status: int, body: str, words: str) -> None:
    alice = visit()
    stop_clock(alice)
    asked = answers(alice, (status, body, {}))
    alice.enter("alice")
    says(alice, words)
    alice.page.clock.run_for(120_000)
    assert alice.page.evaluate("state.phase") == "idle"
    assert len(asked) == 1
    assert not any(url.startswith("ws") for url in alice.requests)
    assert alice.page.get_by_role("button", name="Connect", exact=True).is_enabled()
    if status != 200:
        alice.forgive(REFUSED)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (408, "The server can't let you in at the moment: Slow down. Trying again in 50 s."),
        (429, "The server can't let you in at the moment: Slow down. Trying again in 50 s."),
        (503, "The server can't let you in at the moment: Slow down. Trying again in 50 s."),
    ],
)
def test_what_passes_is_tried_again_when_the_server_says(visit: Visit, status: int, words: str) -> None:
    alice = visit()
    stop_clock(alice)
    answers(alice, (status, "Slow down.", {"Retry-After": str(WAIT // 1000)}))
    alice.enter("alice", room="later")
    says(alice, words)
    alice.page.clock.run_for(WAIT - 1)
    assert alice.page.evaluate("state.phase") == "waiting"
    assert not any(url.startswith("ws") for url in alice.requests)
    alice.page.clock.run_for(1 + 1_000)  # the first back-off
    says(alice, "Connected to #later as alice.")
    alice.forgive(REFUSED)


def test_a_token_that_expires_is_said_and_a_fresh_one_leads_back_to_the_place(visit: Visit) -> None:
    alice = visit().connect("alice", "expired")
    alice.say("here I was")
    alice.log.locator(".sent").wait_for()
    alice.page.evaluate("lost(4001, 'Token expired')")
    says(alice, "Your token has expired. Enter a fresh one and press Connect.")
    alice.text("here I was").wait_for()
    alice.field("Token").fill("token-alice")
    alice.press("Connect")
    says(alice, "Connected to #expired as alice.")
    alice.field("Token").wait_for(state="hidden")
    assert alice.log.locator(".text").all_text_contents() == ["here I was"]
    assert "since=1" in alice.requests[-1]


def test_a_token_that_can_not_replace_another_is_said(visit: Visit) -> None:
    alice = visit().connect("alice", "renewal")
    alice.page.evaluate("receive(JSON.stringify({event: 'expiring', data: {in: 60}}))")
    for token, words in (
        ("", "Enter a token."),
        ("a b", "This token is not valid"),
        ("wrong", "can't replace"),
    ):
        alice.field("Token").fill(token)
        alice.press("Connect")
        says(alice, words)
    alice.say("still here")
    alice.log.locator(".sent", has_text="still here").wait_for()
