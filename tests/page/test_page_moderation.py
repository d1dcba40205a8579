"""What moderators do, what those see to whom it is done, and what the room is told."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.page.test_page_changes import choose, field, menu, unread
from tests.page.test_page_reading import LOOK_AWAY
from tests.support.browser import Visit, Visitor, counts, says, still, stop_clock
from tests.support.process import ServerProcess
from tests.support.scripted import TS, Scripted, refused

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Route

NONE: dict[str, Any] = {"event": "sanctions", "data": {"sanctions": []}}
BOB = {"action": "mute", "username": "bob", "by": "carol", "reason": "flooding"}


def moderator(visit: Visit) -> tuple[Visitor, Scripted]:
    alice = visit()
    room = Scripted(alice, sanctions=NONE).connect()
    room.await_sent("sanctions")
    alice.page.wait_for_function("() => state.moderates")
    return alice, room


def moderated(room: Scripted, action: str, username: str = "alice", **more: object) -> int:
    return room.tell("moderated", {"action": action, "username": username, "by": "carol", **more})


def in_minutes(count: int) -> int:
    return round(time.time() * 1000) + 60_000 * count


@pytest.mark.parametrize(
    "answer",
    [refused("bad_event", "Unknown event: sanctions"), refused("forbidden", "No right to that")],
    ids=["older server", "no moderator"],
)
def test_a_page_without_the_right_shows_nothing_of_it(visit: Visit, answer: dict[str, Any]) -> None:
    alice = visit()
    room = Scripted(alice, sanctions=answer).connect()
    room.say("bob", "hello")
    room.await_sent("sanctions")
    alice.page.wait_for_function("() => state.asked.size === 0")
    assert menu(alice, "hello") == ["Reply", "Copy text", "Copy link"]
    alice.page.keyboard.press("Escape")
    alice.press("More")
    assert not alice.page.get_by_role("button", name="Muted and banned").is_visible()
    assert alice.page.evaluate("state.notice.key") == "online", "it is asked quietly"


def test_a_moderator_mutes_with_a_reason_for_a_while_and_takes_it_back(visit: Visit) -> None:
    alice, room = moderator(visit)
    room.say("bob", "spam")
    assert menu(alice, "spam") == [
        *("Reply", "Copy text", "Copy link", "Delete"),
        *("Mute bob", "Kick bob", "Ban bob"),
    ]
    alice.page.get_by_role("menuitem", name="Mute bob").click()
    alice.page.get_by_role("dialog", name="Mute bob").wait_for()
    assert alice.page.get_by_role("combobox", name="For how long").locator("option").all_text_contents() == [
        "10 minutes",
        "1 hour",
        "Until taken back",
    ]
    alice.field("Reason").fill("flooding")
    alice.press("Mute bob")
    alice.log.get_by_text("alice muted bob for 10 minutes: flooding").wait_for()
    assert room.of("moderate") == [
        {"action": "mute", "username": "bob", "seconds": 600, "reason": "flooding"}
    ]
    alice.press("Undo")
    alice.log.get_by_text("alice unmuted bob").wait_for()
    assert room.of("moderate")[1:] == [{"action": "unmute", "username": "bob"}]
    assert alice.page.get_by_role("button", name="Undo").count() == 0


def test_a_ban_may_be_until_taken_back_and_a_kick_has_no_time(visit: Visit) -> None:
    alice, room = moderator(visit)
    room.say("bob", "spam")
    choose(alice, "spam", "Ban bob")
    alice.page.get_by_role("combobox", name="For how long").select_option("Until taken back")
    alice.press("Ban bob")
    alice.log.get_by_text("alice banned bob", exact=True).wait_for()
    choose(alice, "spam", "Kick bob")
    alice.page.get_by_role("dialog", name="Kick bob").wait_for()
    assert alice.page.get_by_label("For how long").count() == 0
    alice.field("Reason").press("Enter")
    alice.log.get_by_text("alice kicked bob", exact=True).wait_for()
    assert room.of("moderate") == [
        {"action": "ban", "username": "bob"},
        {"action": "kick", "username": "bob"},
    ]
    assert alice.page.get_by_role("button", name="Undo").count() == 1, "a kick can't be undone"


def test_nothing_is_done_without_the_word_of_confirmation(visit: Visit) -> None:
    alice, room = moderator(visit)
    room.say("bob", "spam")
    choose(alice, "spam", "Ban bob")
    alice.page.keyboard.press("Escape")
    alice.page.get_by_role("dialog").wait_for(state="hidden")
    still(alice)
    assert room.of("moderate") == []


def test_a_reason_that_is_too_long_can_not_be_typed_and_the_servers_word_on_bytes_is_said(
    visit: Visit,
) -> None:
    alice, room = moderator(visit)
    room.answers["moderate"] = refused("too_long", "reason has more than 100 bytes")
    room.say("bob", "spam")
    choose(alice, "spam", "Kick bob")
    alice.field("Reason").press_sequentially("ü" * 101)
    assert alice.field("Reason").input_value() == "ü" * 100
    alice.press("Kick bob")
    says(alice, "The server says: reason has more than 100 bytes")


def test_what_is_refused_is_said(visit: Visit) -> None:
    alice, room = moderator(visit)
    room.answers["moderate"] = refused("forbidden", "Moderators can't be muted")
    room.say("bob", "spam")
    choose(alice, "spam", "Mute bob")
    alice.press("Mute bob")
    says(alice, "The server says: Moderators can't be muted")


def test_a_moderator_deletes_what_others_said(visit: Visit) -> None:
    alice, room = moderator(visit)
    stop_clock(alice)
    room.say("bob", "spam")
    choose(alice, "spam", "Delete")
    alice.log.get_by_text("deleting…").wait_for()
    alice.page.clock.run_for(5_000)
    alice.log.get_by_text("Message deleted by alice").wait_for()
    assert room.of("delete") == [{"id": 1}]


def test_the_sanctions_in_force_are_listed_and_taken_back(visit: Visit) -> None:
    alice, room = moderator(visit)
    until = in_minutes(1)
    room.answers["sanctions"] = {
        "event": "sanctions",
        "data": {"sanctions": [{**BOB, "until": until}, {**BOB, "action": "ban", "username": "dan"}]},
    }
    alice.press("More")
    alice.press("Muted and banned")
    dialog = alice.page.get_by_role("dialog", name="Muted and banned")
    dialog.wait_for()
    first, second = (
        text.replace("Take back", "") for text in dialog.get_by_role("listitem").all_text_contents()
    )
    assert first.startswith("carol muted bob until ")
    assert first.endswith(": flooding")
    assert second == "carol banned dan: flooding"
    room.answers["sanctions"] = NONE
    dialog.get_by_role("button", name="Take back").first.click()
    counts(dialog.get_by_role("listitem"), 0)
    assert room.of("moderate") == [{"action": "unmute", "username": "bob"}]


def test_what_moderators_did_is_a_note_and_no_message(visit: Visit) -> None:
    alice = visit()
    room = Scripted(alice).connect()
    alice.page.evaluate(LOOK_AWAY)
    moderated(room, "mute", "bob", until=TS + 1000 + 600_000, reason="flooding")
    moderated(room, "unmute", "bob")
    moderated(room, "ban", "bob", until=TS + 3000 + 86_400_000)
    moderated(room, "unban", "bob")
    moderated(room, "kick", "bob", reason="again")
    alice.log.get_by_text("carol kicked bob: again").wait_for()
    assert alice.log.locator(".note").all_text_contents() == [
        "carol muted bob for 10 minutes: flooding",
        "carol unmuted bob",
        "carol banned bob for 24 hours",
        "carol let bob in again",
        "carol kicked bob: again",
    ]
    assert unread(alice) == 0
    assert alice.page.evaluate("position('general').since") == 5
    assert alice.page.title() == "#general · chatroom"


def test_who_is_muted_keeps_the_draft_and_is_told_until_when(visit: Visit) -> None:
    alice = visit()
    room = Scripted(alice).connect()
    stop_clock(alice)
    alice.page.evaluate("typed = (real => text => real(text))(typed)")
    alice.field("Message").fill("a draft")
    room.await_sent("typing")
    moderated(room, "mute", until=alice.page.evaluate("Date.now()") + 600_000)
    alice.page.get_by_text("You are muted until ").wait_for()
    assert room.await_sent("typing", 2)[-1] == {"active": False}
    alice.field("Message").press_sequentially("!")
    alice.field("Message").press("Enter")
    still(alice)
    assert field(alice) == "a draft!"
    assert len(room.of("typing")) == 2
    assert room.of("message") == []
    alice.field("Message").fill("")
    assert "You are muted until " in (alice.field("Message").get_attribute("placeholder") or "")
    alice.field("Message").fill("a draft!")
    alice.page.clock.run_for(601_000)
    still(alice)
    alice.press("Send")
    room.await_sent("message")


def test_who_is_unmuted_may_speak(visit: Visit) -> None:
    alice = visit()
    room = Scripted(alice).connect()
    moderated(room, "mute")
    alice.field("Message").fill("let me")
    alice.page.get_by_text("You are muted.", exact=True).wait_for()
    moderated(room, "unmute")
    alice.press("Send")
    room.await_sent("message")


def test_what_a_muted_person_said_comes_back_to_the_field(visit: Visit) -> None:
    alice = visit()
    error = refused("forbidden", "You are muted", until=in_minutes(10))
    room = Scripted(alice, message=error).connect()
    alice.say("hello")
    alice.page.get_by_text("You are muted until ").wait_for()
    assert field(alice) == "hello"
    assert alice.log.locator(".message").count() == 0
    assert room.of("message") == [{"text": "hello"}]


def test_an_edit_that_a_mute_refused_is_possible_afterwards(visit: Visit) -> None:
    alice = visit()
    error = refused("forbidden", "You are muted", until=in_minutes(10))
    room = Scripted(alice, edit=error).connect()
    alice.say("mine")
    alice.log.locator(".sent").wait_for()
    choose(alice, "mine", "Edit")
    alice.field("Message").fill("other")
    alice.press("Save")
    alice.log.get_by_text("not sent: You are muted").wait_for()
    alice.press("Discard")
    assert menu(alice, "mine") == ["Reply", "Copy text", "Copy link", "Delete"]
    alice.page.keyboard.press("Escape")
    moderated(room, "unmute")
    alice.log.get_by_text("carol unmuted alice").wait_for()
    assert "Edit" in menu(alice, "mine")


@pytest.mark.parametrize("reason", ["kicked", "flooding"])
def test_who_is_removed_is_told_why_and_comes_back_by_hand(visit: Visit, reason: str) -> None:
    alice = visit()
    room = Scripted(alice).connect()
    stop_clock(alice)
    room.close(4510, reason)
    says(alice, f"You were removed from this room: {reason}.")
    alice.page.clock.run_for(120_000)
    alice.page.evaluate("dispatchEvent(new Event('online'))")
    still(alice)
    assert room.sockets == 1
    alice.press("Enter again")
    says(alice, "Connected to #general as alice.")
    assert room.sockets == 2


def test_who_is_banned_is_told_until_when(visit: Visit) -> None:
    alice = visit()
    answers: list[dict[str, str]] = [{"Retry-After": "7200"}, {}]

    def answer(route: Route) -> None:
        route.fulfill(status=403, body="Banned from this room", headers=answers.pop(0))

    alice.page.route("**/handshake?*", answer)
    alice.enter("alice")
    says(alice, "You are banned from this room until ")
    assert alice.page.evaluate("state.phase") == "idle"
    alice.press("Connect")
    alice.page.get_by_text("You are banned from this room.", exact=True).wait_for()
    alice.forgive("console: Failed to load resource")


def test_a_room_that_one_is_banned_from_says_until_when(visit: Visit) -> None:
    alice = visit()
    error = refused("forbidden", "Banned from this room", until=in_minutes(10))
    room = Scripted(alice, switch_room=error).connect()
    alice.switch("ops")
    says(alice, "You can't enter #ops: Banned from this room until ")
    alice.say("still here")
    room.await_sent("message")


TOKENS = """
[[token]]
token = "the-token-of-carol-0123456789"
username = "carol"
rooms = { general = "rwm" }
[[token]]
token = "the-token-of-bob-0123456789"
username = "bob"
"""


def test_a_moderator_and_a_flooder_at_the_real_server(visit: Visit, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.toml"
    tokens.write_text(TOKENS, "utf-8")
    with ServerProcess("--db", "none", "--tokens", str(tokens)) as guarded:
        carol, bob = visit(guarded), visit(guarded)
        for name, visitor in (("carol", carol), ("bob", bob)):
            visitor.enter(name, token=f"the-token-of-{name}-0123456789")
            says(visitor, f"Connected to #general as {name}.")
        bob.say("helo")
        bob.log.locator(".sent").wait_for()
        bob.field("Message").press("ArrowUp")
        bob.field("Message").fill("hello")
        bob.press("Save")
        carol.text("hello (edited)").wait_for()
        bob.say("spam")
        carol.text("spam").wait_for()
        choose(carol, "spam", "Delete")
        bob.log.get_by_text("Message deleted by carol").wait_for()
        choose(carol, "hello", "Mute bob")
        carol.field("Reason").fill("flooding")
        carol.press("Mute bob")
        bob.log.get_by_text("carol muted bob for 10 minutes: flooding").wait_for()
        bob.field("Message").fill("let me")
        bob.page.get_by_text("You are muted until ").wait_for()
        carol.press("Undo")
        bob.log.get_by_text("carol unmuted bob").wait_for()
        bob.press("Send")
        carol.text("let me").wait_for()
        choose(carol, "hello", "Kick bob")
        carol.press("Kick bob")
        says(bob, "You were removed from this room: kicked.")
        bob.press("Enter again")
        says(bob, "Connected to #general as bob.")
        choose(carol, "hello", "Ban bob")
        carol.press("Ban bob")
        says(bob, "You were removed from this room: banned.")
        bob.press("Enter again")
        says(bob, "You are banned from this room until ")
        carol.press("Leave")
        bob.forgive("console: Failed to load resource")
