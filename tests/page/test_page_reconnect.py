"""The page loses its connection, its server or itself, and nothing is lost or doubled."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.browser import Visit, counts, reads, says, stop_clock
from tests.support.process import ServerProcess

if TYPE_CHECKING:
    from playwright.sync_api import WebSocketRoute


def test_history_is_there_after_a_reload_and_older_can_be_loaded(visit: Visit) -> None:
    alice = visit().connect("alice", "history")
    alice.page.evaluate("for (let number = 0; number < 120; number++) sendMessage(`message ${number}`)")
    counts(alice.log.locator(".sent"), 120)
    alice.page.reload()
    says(alice, "Connected to #history as alice.")
    alice.text("message 119").wait_for()
    shown = alice.log.locator(".text")
    counts(shown, 50)
    alice.page.evaluate("state.room.loading = null")  # by hand only: the click scrolls up to the button
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
        reads(visitor.log.locator(".text"), "before", "meanwhile", "after")
    assert any("since=1" in url and "epoch=" in url for url in bob.requests)


def test_what_was_sent_while_the_server_was_away_goes_out_once(visit: Visit) -> None:
    with ServerProcess("--db", "none") as first:
        alice = visit(first).connect("alice")
        alice.say("one")
        alice.log.locator(".sent").wait_for()
        assert first.stop() == 0
    says(alice, re.compile("No connection|Connecting"))  # either stands only until the next try
    alice.say("two")
    alice.log.locator(".pending").wait_for()
    says(alice, "No connection. Trying again")
    with ServerProcess("--db", "none", "--port", str(first.port)) as second:
        bob = visit(second).connect("bob")
        says(alice, "Connected to #general as alice.")
        bob.text("two").wait_for()
        counts(alice.log.locator(".sent"), 2)
        alice.log.get_by_text("The history of this room was replaced.").wait_for()
        assert alice.log.locator(".text").all_text_contents() == ["one", "two"]
        assert bob.log.locator(".text").all_text_contents() == ["two"]
        alice.overlook("console: ")
        for visitor in (alice, bob):
            visitor.press("Leave")


def test_a_refused_message_is_marked_and_can_be_tried_again(visit: Visit) -> None:
    alice = visit().connect("alice", "refused")
    alice.page.evaluate("state.limits = {}")  # a server that tells none
    alice.say("x" * 4001)
    alice.log.get_by_text("not sent").wait_for()
    alice.press("Try again")
    alice.log.get_by_text("not sent").wait_for()
    alice.say("short")
    alice.log.locator(".sent").wait_for()


@pytest.mark.parametrize("from_file", [False, True], ids=["served", "file"])
def test_a_server_that_restarts_in_mid_typing_costs_nothing(
    visit: Visit, tmp_path: Path, from_file: bool
) -> None:
    database = ("--db", str(tmp_path / "chat.db"))
    with ServerProcess(*database) as first:
        alice = visit(first, from_file=from_file).connect("alice")
        bob = visit(first).connect("bob")
        bob.say("before")
        alice.text("before").wait_for()
        alice.field("Message").press_sequentially("half a sent")
        assert first.stop() == 0
    alice.field("Message").press_sequentially("ence")
    says(alice, re.compile("No connection|Connecting"))
    bob.say("while it is away")
    bob.log.locator(".pending").wait_for()
    with ServerProcess(*database, "--port", str(first.port)) as second:
        for visitor, name in ((alice, "alice"), (bob, "bob")):
            says(visitor, f"Connected to #general as {name}.")
        assert alice.field("Message").input_value() == "half a sentence"
        alice.press("Send")
        carol = visit(second).connect("carol")
        for visitor in (alice, bob, carol):
            counts(visitor.log.locator(".sent .text"), 3)
            texts = visitor.log.locator(".text").all_text_contents()
            assert sorted(texts) == ["before", "half a sentence", "while it is away"]
        assert alice.log.get_by_text("missing").count() == 0
        alice.overlook("console: ")
        bob.overlook("console: ")
        for visitor in (alice, bob, carol):
            visitor.press("Leave")


def test_what_waits_to_be_sent_survives_a_reload_and_goes_out_once(visit: Visit) -> None:
    """From a server: Chromium forgets what a tab of a file has stored, at one reload in a hundred."""
    alice = visit().connect("alice", "waiting")
    bob = visit().connect("bob", "waiting")
    alice.page.evaluate("transmit = () => 0")
    alice.say("kept")
    alice.log.locator(".pending").wait_for()
    cid = alice.page.evaluate("[...state.outbox.keys()][0]")
    alice.field("Message").press_sequentially("a draft")
    alice.page.reload()
    assert alice.warnings == 1, "closing a tab with unsent messages warns"
    assert alice.field("Username").input_value() == "alice"
    assert alice.field("Token").input_value() == "token-alice"
    bob.text("kept").wait_for()
    alice.log.locator(".sent").wait_for()
    assert alice.field("Message").input_value() == "a draft"
    alice.page.reload()
    alice.text("kept").wait_for()
    for visitor in (alice, bob):
        assert visitor.log.locator(".text").all_text_contents() == ["kept"]
    assert alice.page.evaluate("state.room.log.at(-1).cid") == cid


def test_a_message_that_was_stored_before_the_reload_is_not_said_again(visit: Visit) -> None:
    alice = visit().connect("alice", "twice")
    alice.page.evaluate("window.keepOutbox = () => 0")  # as if the page went before it heard the echo
    alice.page.evaluate("sendMessage('once'), tab.keep('outbox', [...state.outbox.values()])")
    alice.log.locator(".sent").wait_for()
    alice.page.reload()
    alice.text("once").wait_for()
    alice.page.wait_for_function("() => state.outbox.size === 0")
    alice.say("after")
    alice.log.locator(".sent", has_text="after").wait_for()
    assert alice.log.locator(".text").all_text_contents() == ["once", "after"]


def test_a_message_waits_for_its_own_room_and_name(visit: Visit) -> None:
    alice = visit().connect("alice", "own")
    alice.page.evaluate("transmit = () => 0")
    alice.say("for this room")
    alice.log.locator(".pending").wait_for()
    alice.press("Leave")
    alice.page.reload()
    for username, room in (("bob", "own"), ("alice", "other")):
        alice.connect(username, room)
        assert alice.page.evaluate("[state.outbox.size, waiting().length]") == [1, 0]
        alice.press("Leave")
    alice.connect("alice", "own")
    alice.log.locator(".sent").wait_for()


def test_what_was_entered_is_remembered_and_the_token_only_for_the_tab(visit: Visit) -> None:
    alice = visit().connect("alice", "memory")
    alice.press("Leave")
    fields = {"Username": "alice", "Token": "token-alice", "Room": "memory"}
    alice.page.reload()
    assert {label: alice.field(label).input_value() for label in fields} == fields
    other = alice.context.new_page()
    other.goto(alice.address)
    assert {label: other.get_by_label(label, exact=True).input_value() for label in fields} == {
        **fields,
        "Token": "",
    }
    assert "token-alice" not in other.evaluate("JSON.stringify(localStorage)")


def test_a_silent_connection_is_noticed(visit: Visit) -> None:
    """What is sent still goes somewhere; only no answer comes back, and no end."""

    silent: list[WebSocketRoute] = []
    opened: list[WebSocketRoute] = []

    def relay(socket: WebSocketRoute) -> None:
        server = socket.connect_to_server()
        opened.append(socket)
        server.on_message(lambda text: None if socket in silent else socket.send(text))

    alice = visit()
    stop_clock(alice)
    alice.page.route_web_socket("**/*", relay)
    alice.page.reload()  # its timers are those of the clock from here on
    alice.connect("alice", "silent")
    alice.page.wait_for_function("() => state.asked.size === 0")  # no answer comes later
    silent += opened
    alice.page.clock.run_for(30_000)
    assert alice.page.evaluate("[state.phase, state.pinged > state.heard]") == ["online", True]
    alice.page.clock.run_for(15_000)
    says(alice, "No connection")
    alice.page.clock.run_for(1_000)  # the first back-off
    says(alice, "Connected to")
    assert alice.page.evaluate("state.attempt") == 1


def test_what_could_not_be_recovered_is_said_where_it_is_missing(visit: Visit) -> None:
    alice = visit().connect("alice", "gaps")
    alice.page.evaluate(
        """() => {
            const hear = frame => receive(JSON.stringify(frame));
            const welcome = {event: 'welcome', data: {members: []}, room: 'gaps', username: 'alice'};
            const said = id => ({event: 'message', data: {username: 'bob', text: `m${id}`}, id, ts: 1e12});
            hear(said(1));
            hear({...welcome, epoch: state.room.epoch, last_id: 900, replay: 1, recovered: false});
            hear(said(900));
        }"""
    )
    missed = alice.log.get_by_text("You were away for long.")
    missed.wait_for()
    assert alice.log.locator(".text").all_text_contents() == ["m900"]
    alice.page.evaluate(
        """() => {
            state.asked.set('h', {event: 'history', room: state.room, before: 900});
            const messages = [898, 899].map(id => ({id, ts: 10 ** 12, username: 'bob', text: `m${id}`}));
            receive(JSON.stringify({event: 'history', data: {messages, more: false}, cid: 'h'}));
        }"""
    )
    missed.wait_for(state="hidden")
    assert alice.log.locator(".text").all_text_contents() == ["m898", "m899", "m900"]
