"""The page in a real browser, against the real server: people talk, and what is hostile stays text."""

from __future__ import annotations

import pytest

from tests.support.browser import Visit, counts, members, says, stop_clock

HOSTILE_TEXTS = (
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>",
    "<b>bold</b> &amp; <a href=javascript:alert(1)>x</a>",
    "{username} ${1} \\u003cimg\\u003e",
    "\u202egnp.exe",
)
HOSTILE_NAMES = ("<img/src=x/onerror=alert(1)>", "<script>alert(1)</script>", "{username}", "__proto__")


@pytest.mark.parametrize("from_file", [False, True], ids=["served", "file"])
def test_two_people_talk(visit: Visit, from_file: bool) -> None:
    room = f"talk-{from_file}"
    alice = visit(from_file=from_file).connect("alice", room)
    bob = visit().connect("bob", room)
    alice.say("hello, bob")
    bob.text("hello, bob").wait_for()
    bob.say("hello,\n  alice")
    alice.log.locator(".text", has_text="alice").wait_for()
    assert alice.log.locator(".text").all_text_contents() == ["hello, bob", "hello,\n  alice"]
    assert alice.log.locator(".who").all_text_contents() == ["alice", "bob"]
    assert alice.log.locator(".pending").count() == 0


def test_enter_sends_and_shift_enter_does_not(visit: Visit) -> None:
    alice = visit().connect("alice", "keys")
    alice.field("Message").press_sequentially("one")
    alice.field("Message").press("Shift+Enter")
    alice.field("Message").press_sequentially("two")
    alice.field("Message").press("Enter")
    alice.log.locator(".message.sent").wait_for()
    assert alice.log.locator(".text").all_text_contents() == ["one\ntwo"]
    assert alice.field("Message").input_value() == ""


def test_the_token_is_in_no_address(visit: Visit) -> None:
    alice = visit().connect("alice", "secret")
    assert [url for url in alice.requests if "token" in url] == []
    assert any(url.startswith("ws") for url in alice.requests)


def test_hostile_texts_stay_text(visit: Visit) -> None:
    alice = visit().connect("alice", "hostile")
    bob = visit().connect("bob", "hostile")
    for text in HOSTILE_TEXTS:
        alice.say(text)
    for visitor in (alice, bob):
        counts(visitor.log.locator(".sent"), len(HOSTILE_TEXTS))
        assert visitor.log.locator(".text").all_text_contents() == list(HOSTILE_TEXTS)
        assert visitor.log.locator("img, script, a, b").count() == 0


def test_hostile_names_stay_text(visit: Visit) -> None:
    alice = visit().connect("alice", "<b>names</b>")
    villain = visit()
    for name in HOSTILE_NAMES:
        villain.connect(name, "<b>names</b>")
        members(alice, name, "alice (you)")
        villain.say("hello")
        alice.log.locator(".who", has_text=name).wait_for()
        villain.press("Leave")
        alice.log.get_by_text(f"{name} left", exact=True).wait_for()
    assert alice.log.locator(".who").all_text_contents() == list(HOSTILE_NAMES)
    assert alice.page.locator("img, script:not(body > script), b").count() == 0


def test_joins_leaves_and_members_are_shown(visit: Visit) -> None:
    alice = visit().connect("alice", "people")
    members(alice, "alice (you)")
    bob = visit().connect("bob", "people")
    members(bob, "alice", "bob (you)")
    members(alice, "alice (you)", "bob")
    bob.press("Leave")
    says(bob, "Not connected.")
    members(alice, "alice (you)")
    told = alice.log.locator(".note span").all_text_contents()
    assert [each.strip() for each in told] == ["bob joined", "bob left"]
    bob.press("Connect")
    members(alice, "alice (you)", "bob")


def test_rooms_are_switched(visit: Visit) -> None:
    alice = visit().connect("alice", "east")
    bob = visit().connect("bob", "west")
    bob.say("in the west")
    bob.log.locator(".sent").wait_for()
    alice.say("in the east")
    alice.log.locator(".sent").wait_for()
    alice.switch("west")
    says(alice, "Connected to #west as alice.")
    alice.text("in the west").wait_for()
    members(alice, "alice (you)", "bob")
    assert alice.log.locator(".text").all_text_contents() == ["in the west"]
    alice.say("west too")
    bob.text("west too").wait_for()


def test_a_room_that_can_not_be_entered_is_said(visit: Visit) -> None:
    alice = visit().connect("alice", "east")
    alice.switch("x" * 65)
    says(alice, "You can't enter")
    alice.say("still here")
    alice.log.locator(".sent", has_text="still here").wait_for()


def test_typing_comes_and_goes(visit: Visit) -> None:
    alice = visit().connect("alice", "typing")
    bob = visit().connect("bob", "typing")
    for visitor in (alice, bob):
        stop_clock(visitor)  # so that no mark goes by its age
    bob.field("Message").press_sequentially("hi")
    mark = alice.page.get_by_text("bob is typing…")
    mark.wait_for()
    bob.field("Message").press("Enter")
    mark.wait_for(state="detached")
    bob.field("Message").press_sequentially("hm")
    mark.wait_for()
    bob.field("Message").fill("")  # the fourth typing frame: as many pass in 3 s
    mark.wait_for(state="detached")
