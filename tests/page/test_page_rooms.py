"""Other rooms: what the server lists, what it tells of them, and what is known without."""

from __future__ import annotations

import json
from typing import Any

from tests.support.browser import Visit, Visitor, says, shows, still
from tests.support.scripted import Frame, Scripted, refused


def listed(*rooms: str, more: bool = False) -> Frame:
    told = [{"room": room, "members": len(room), "last_id": 44, "last_ts": 1} for room in rooms]
    return {"event": "rooms", "data": {"rooms": told, "more": more}}


def recent(visitor: Visitor, name: str, **more: Any) -> None:
    """Let the page know a room of an earlier visit."""
    one = {"base": "", "user": "alice", "name": name, "epoch": "x", "read": 10, "unread": 0, **more}
    base = "new URL('.', location).href.replace(/^http/, 'ws')"
    visitor.page.evaluate(f"one => disk.keep('recent', [{{...one, base: {base}}}])", one)
    visitor.page.reload()
    visitor.wait_started()


def counted(visitor: Visitor, name: str) -> str:
    still(visitor)
    button = visitor.page.get_by_role("navigation").locator("button").filter(has_text=name)
    return button.locator(".count").text_content() or ""


def followed(last: int, messages: int) -> Frame:
    return {
        "event": "ack",
        "data": {"rooms": [{"room": "ops", "epoch": "x", "last_id": last, "messages": messages}]},
    }


def choices(visitor: Visitor) -> Any:
    return visitor.page.locator("#choice li > button:first-child")


def test_the_switcher_lists_the_rooms_of_the_server_page_by_page(visit: Visit) -> None:
    alice = visit()
    room = Scripted(alice, rooms=listed("ops", "lunch", more=True)).connect()
    alice.press("+")
    shows(choices(alice), "# ops 3 here ", "# lunch 5 here ", "More rooms")
    assert room.of("rooms") == [{"limit": 50}]
    room.answers["rooms"] = listed("attic")
    alice.press("More rooms")
    shows(choices(alice), "# ops 3 here ", "# lunch 5 here ", "# attic 5 here ")
    assert room.of("rooms")[1:] == [{"after": "lunch", "limit": 50}]
    alice.page.keyboard.type("att")
    shows(choices(alice), "# attic 5 here ", "Enter #att")
    alice.page.keyboard.press("Enter")
    assert room.await_sent("switch_room")[0]["room"] == "attic"


def test_where_rooms_are_hidden_the_known_ones_are_listed(visit: Visit) -> None:
    alice = visit()
    recent(alice, "ops")
    room = Scripted(alice, rooms=refused("forbidden", "Rooms are hidden")).connect()
    alice.press("+")
    room.await_sent("rooms")
    alice.page.wait_for_function("() => [...state.asked.values()].every(one => one.event !== 'rooms')")
    still(alice)
    shows(choices(alice), "# ops  ")
    assert alice.page.evaluate("state.notice.key") == "online"
    alice.page.keyboard.press("Escape")
    alice.press("+")
    room.await_sent("rooms", 2)


def test_what_happens_elsewhere_is_counted_by_messages(visit: Visit) -> None:
    alice = visit()
    recent(alice, "ops")
    room = Scripted(alice, follow=followed(last=10, messages=8)).connect()
    assert room.await_sent("follow") == [{"rooms": ["ops"]}]
    alice.page.wait_for_function("() => state.recent.find(one => one.name === 'ops').seen === 8")
    assert counted(alice, "ops") == ""

    def activity(last: int, messages: int, *mentions: str) -> None:
        data = {"room": "ops", "last_id": last, "messages": messages, "username": "bob"}
        before = alice.page.evaluate("state.heard")
        room.send({"event": "activity", "data": {**data, "mentions": mentions}})
        alice.page.wait_for_function("before => state.heard > before", arg=before)

    activity(12, 10)
    assert counted(alice, "ops") == "2"
    activity(15, 10)
    assert counted(alice, "ops") == "2", "three edits"
    activity(16, 11, "zoe", "alice")
    assert counted(alice, "ops") == "@3"
    activity(17, 12)
    assert counted(alice, "ops") == "@4"
    kept = json.loads(alice.page.evaluate("localStorage['chatroom.recent']"))
    assert next(one["unread"] for one in kept if one["name"] == "ops") == 4


def test_a_switch_follows_the_room_that_was_left(visit: Visit) -> None:
    alice = visit()
    switched = {
        "event": "switched",
        "data": {"room": "ops"},
        "members": [],
        "epoch": "x",
        "last_id": 0,
        "replay": 0,
    }
    room = Scripted(alice, switch_room=switched).connect()
    alice.switch("ops")
    says(alice, "Connected to #ops as alice.")
    assert room.await_sent("follow") == [{"rooms": ["general"]}]
