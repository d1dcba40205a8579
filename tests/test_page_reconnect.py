"""The page loses its connection, its server or itself, and nothing is lost or doubled."""

from __future__ import annotations

import re

from tests.support.browser import Visit, counts, says
from tests.support.process import ServerProcess


def test_history_is_there_after_a_reload_and_older_can_be_loaded(visit: Visit) -> None:
    alice = visit().connect("alice", "history")
    alice.page.evaluate("for (let number = 0; number < 120; number++) sendMessage(`message ${number}`)")
    counts(alice.log.locator(".sent"), 120)
    alice.page.reload()
    alice.connect("alice", "history")
    alice.text("message 119").wait_for()
    shown = alice.log.locator(".text")
    counts(shown, 50)
    alice.press("Load older")
    counts(shown, 120)
    assert shown.all_text_contents() == [f"message {number}" for number in range(120)]
    alice.page.get_by_role("button", name="Load older").wait_for(state="hidden")


def test_a_lost_connection_resumes_where_it_was(visit: Visit) -> None:
    alice = visit().connect("alice", "resume")
    bob = visit().connect("bob", "resume")
    alice.say("before")
    bob.text("before").wait_for()
    bob.page.evaluate("state.socket.close(4000)")
    alice.say("meanwhile")
    bob.text("meanwhile").wait_for()
    bob.say("after")
    alice.text("after").wait_for()
    for visitor in (alice, bob):
        assert visitor.log.locator(".text").all_text_contents() == ["before", "meanwhile", "after"]
    assert any("since=1" in url and "epoch=" in url for url in bob.requests)


def test_what_was_sent_while_the_server_was_away_goes_out_once(visit: Visit) -> None:
    with ServerProcess("--db", "none") as first:
        alice = visit(first).connect("alice")
        alice.say("one")
        alice.log.locator(".sent").wait_for()
        assert first.stop() == 0
    says(alice, re.compile("Connecting again|can't be reached"))  # either stands only until the next try
    alice.say("two")
    alice.log.locator(".pending").wait_for()
    says(alice, "can't be reached")
    with ServerProcess("--db", "none", "--port", str(first.port)) as second:
        bob = visit(second).connect("bob")
        says(alice, "Connected to #general as alice.")
        bob.text("two").wait_for()
        counts(alice.log.locator(".sent"), 2)
        alice.log.get_by_text("The history of this room was replaced.").wait_for()
        assert alice.log.locator(".text").all_text_contents() == ["one", "two"]
        assert bob.log.locator(".text").all_text_contents() == ["two"]
        alice.forgive("console: ")
        for visitor in (alice, bob):
            visitor.press("Leave")


def test_a_refused_message_is_marked_and_can_be_tried_again(visit: Visit) -> None:
    alice = visit().connect("alice", "refused")
    alice.say("x" * 4001)
    alice.log.get_by_text("not sent").wait_for()
    alice.press("Try again")
    alice.log.get_by_text("not sent").wait_for()
    alice.say("short")
    alice.log.locator(".sent").wait_for()
