"""Many tabs, reloads and rooms: what is a tab's stays its own, what is a person's is the same in all."""

from __future__ import annotations

import pytest

from tests.page.test_page_reading import LOOK_AWAY, LOOK_BACK, told_of_calls
from tests.support.browser import Visit, Visitor, counts, reads, says, still

WATCH_CALLS = """() => {
    window.told = [];
    chime = () => { told.push('chime'); };
    state.sound = true;
}"""


def draft(visitor: Visitor) -> str:
    return visitor.field("Message").input_value()


def test_a_draft_belongs_to_its_room_and_name(visit: Visit) -> None:
    alice = visit().connect("alice", "draft-one")
    alice.field("Message").press_sequentially("for one")
    alice.switch("draft-two")
    says(alice, "Connected to #draft-two as alice.")
    assert draft(alice) == ""
    alice.field("Message").press_sequentially("for two")
    alice.switch("draft-one")
    says(alice, "Connected to #draft-one as alice.")
    assert draft(alice) == "for one"
    alice.page.reload()
    says(alice, "Connected to #draft-one as alice.")
    assert draft(alice) == "for one"
    alice.press("Send")
    counts(alice.log.locator(".sent"), 1)
    alice.press("Leave")
    alice.connect("bob", "draft-two")
    assert draft(alice) == ""
    alice.press("Leave")
    alice.connect("alice", "draft-two")
    assert draft(alice) == "for two"
    alice.switch("draft-one")
    says(alice, "Connected to #draft-one as alice.")
    assert draft(alice) == "", "what was said is no draft"


def test_a_reloaded_tab_is_what_it_was(visit: Visit) -> None:
    alice = visit().connect("alice", "tab-a")
    bob = visit(beside=alice).connect("bob", "tab-b")
    alice.page.reload()
    says(alice, "Connected to #tab-a as alice.")
    bob.page.reload()
    says(bob, "Connected to #tab-b as bob.")


def test_a_tab_that_was_left_on_purpose_stays_out(visit: Visit) -> None:
    alice = visit().connect("alice", "left")
    alice.press("Leave")
    alice.page.reload()
    still(alice)
    assert alice.page.evaluate("state.phase") == "idle"
    assert alice.field("Token").input_value() == "token-alice"


def test_read_markers_are_merged_and_never_set_back(visit: Visit) -> None:
    alice = visit().connect("alice", "merged")
    twin = visit(beside=alice).connect("alice", "merged")
    bob = visit().connect("bob", "merged")
    for each in (alice, twin):
        each.page.evaluate(LOOK_AWAY)
    bob.say("one")
    bob.say("two")
    for each in (alice, twin):
        each.page.wait_for_function("() => document.title === '(2) #merged · chatroom'")
    alice.page.evaluate(LOOK_BACK)
    for each in (alice, twin):
        each.page.wait_for_function("() => document.title === '#merged · chatroom'")
    read = "recalled().find(one => one.name === 'merged').read"
    assert alice.page.evaluate(read) == 2
    twin.page.evaluate("state.room.read = 0, keepRooms()")
    assert twin.page.evaluate(read) == 2, "a tab sees at once what it writes, another one later"
    assert alice.page.evaluate(read) == 2


def test_a_tab_calls_only_if_none_of_its_person_is_looked_at(visit: Visit) -> None:
    alice = visit().connect("alice", "calling")
    twin = visit(beside=alice).connect("alice", "calling")
    bob = visit().connect("bob", "calling")
    for each in (alice, twin):
        each.page.evaluate(WATCH_CALLS)
    twin.page.evaluate(LOOK_AWAY)
    looks = """async count => {
        const {held} = await navigator.locks.query();
        return held.filter(({name}) => name.includes(' look ')).length === count;
    }"""
    twin.page.wait_for_function(looks, arg=1)
    bob.say("@alice while one is looked at")
    for each in (alice, twin):
        each.log.locator(".called").wait_for()
    alice.page.evaluate(LOOK_AWAY)
    twin.page.wait_for_function(looks, arg=0)
    bob.say("@alice while none is")
    for each in (alice, twin):
        counts(each.log.locator(".called"), 2)
        told_of_calls(each)
    told = [each.page.evaluate("told.length") for each in (alice, twin)]
    assert sum(told) == 1


def test_what_waits_is_told_to_who_left(visit: Visit) -> None:
    alice = visit().connect("alice", "told")
    alice.page.evaluate("transmit = () => 0")
    alice.say("waits")
    alice.log.locator(".pending").wait_for()
    alice.press("Leave")
    alice.page.reload()
    says(alice, "Not sent yet: 1. Connect to #told to send.")


def test_staying_signed_in_is_a_choice_and_leaving_ends_it(visit: Visit) -> None:
    alice = visit()
    box = alice.page.get_by_label("Stay signed in on this device")
    assert not box.is_checked()
    box.check()
    alice.connect("alice", "stay")
    twin = visit(beside=alice)
    says(twin, "Connected to #stay as alice.")
    twin.press("Leave")
    assert "token-alice" not in twin.page.evaluate("JSON.stringify(localStorage)")
    third = visit(beside=alice)
    assert third.page.evaluate("state.phase") == "idle"


@pytest.mark.parametrize("from_file", [False, True], ids=["served", "file"])
def test_an_address_leads_to_a_room_and_a_message(visit: Visit, from_file: bool) -> None:
    room = f"led to {from_file}".replace(" ", "-")
    bob = visit().connect("bob", room)
    bob.page.evaluate("for (let n = 1; n <= 300; n++) sendMessage(`message ${n}`)")
    bob.page.wait_for_function("() => state.outbox.size === 0")
    alice = visit(from_file=from_file, place=f"#{room}@120")
    assert alice.field("Room").input_value() == room
    if from_file:
        alice.field("Server").fill(alice.server.replace("http", "ws"))
    alice.field("Username").fill("alice")
    alice.field("Token").fill("token-alice")
    alice.press("Connect")
    alice.log.locator(".found").get_by_text("message 120", exact=True).wait_for()
    box = alice.log.locator(".found").bounding_box()
    assert box is not None
    assert 0 < box["y"] < 720
    alice.page.get_by_role("button", name="To the end").click()
    alice.text("message 300").wait_for()
    assert "#" not in alice.page.evaluate("location.hash")


def test_an_invitation_has_the_room_and_no_token(visit: Visit) -> None:
    alice = visit().connect("alice", "invité")
    address = alice.page.evaluate("addressOf(state.room.name)")
    assert address == f"{alice.server}/#invit%C3%A9"
    bob = visit(place=address.removeprefix(alice.address))
    assert bob.field("Room").input_value() == "invité"


def test_a_room_can_be_forgotten(visit: Visit) -> None:
    alice = visit().connect("alice", "kept")
    alice.switch("forgotten")
    says(alice, "Connected to #forgotten as alice.")
    alice.switch("kept")
    says(alice, "Connected to #kept as alice.")
    alice.page.keyboard.press("Control+k")
    alice.page.get_by_role("button", name="Forget", exact=True).click()
    alice.page.keyboard.press("Escape")
    reads(alice.page.get_by_role("navigation").get_by_role("button"), "kept")
