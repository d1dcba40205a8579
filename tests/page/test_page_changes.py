"""Messages that are edited and deleted, by oneself and by others."""

from __future__ import annotations

from tests.page.test_page_reading import LOOK_AWAY
from tests.support.browser import Visit, Visitor, counts, holds, still, stop_clock
from tests.support.scripted import Scripted, refused

DELETED = "Message deleted"


def menu(visitor: Visitor, text: str) -> list[str]:
    """Open the menu of a message by the mouse; what it offers."""
    visitor.log.locator(".message", has_text=text).locator(".text").hover()
    visitor.press("More actions")
    return visitor.page.get_by_role("menuitem").all_text_contents()


def choose(visitor: Visitor, text: str, item: str) -> None:
    menu(visitor, text)
    visitor.page.get_by_role("menuitem", name=item, exact=True).click()


def field(visitor: Visitor) -> str:
    return visitor.field("Message").input_value()


def unread(visitor: Visitor) -> object:
    still(visitor)
    return visitor.page.evaluate("state.room.unread")


def test_an_edit_changes_the_message_in_place_and_says_when(visit: Visit) -> None:
    alice = visit()
    room = Scripted(alice).connect()
    first = room.say("bob", "helo")
    room.say("bob", "second")
    edit = room.tell("edited", {"id": first, "username": "bob", "text": "hello", "by": "bob"})
    alice.text("hello (edited)").wait_for()
    assert alice.log.locator(".text").all_text_contents() == ["hello (edited)", "second"]
    assert "2025" in (alice.log.get_by_text("(edited)").get_attribute("title") or "")
    assert alice.page.evaluate("position('general').since") == edit
    assert alice.log.get_by_text("Something is missing here.").count() == 0


def test_a_record_is_applied_only_if_it_is_above_the_version_that_is_known(visit: Visit) -> None:
    alice = visit()
    room = Scripted(alice)
    one = room.say("bob", "newest", edited=5)
    room.say("bob", "", deleted=6)
    room.tell("edited", {"id": one, "username": "bob", "text": "", "by": "bob"})
    room.tell("edited", {"id": 2, "username": "bob", "text": "", "by": "bob"})
    room.tell("edited", {"id": one, "username": "bob", "text": "newest", "by": "bob"})
    room.tell("deleted", {"id": 2, "username": "bob", "by": "bob"})
    room.connect()
    alice.page.wait_for_function("() => state.room.lastId === 6")  # they come one by one
    still(alice)
    assert alice.log.locator(".text").all_text_contents() == ["newest (edited)", DELETED]
    room.tell("edited", {"id": 2, "username": "bob", "text": "risen", "by": "bob"})
    room.say("bob", "later")
    alice.text("later").wait_for()
    assert alice.log.locator(".text").all_text_contents() == ["newest (edited)", DELETED, "later"]


def test_history_shows_the_messages_as_they_are(visit: Visit) -> None:
    alice = visit()
    room = Scripted(alice, history=None).connect()
    alice.page.evaluate(
        """() => addOlder(Object.assign(state.room, {more: true}), firstId(state.room), {more: false, items: [
            {id: -2, ts: 1e12, username: 'bob', text: 'now so', edited: 7},
            {id: -1, ts: 1e12, username: 'bob', text: '', deleted: 8},
        ]})"""
    )
    room.say("bob", "last")
    alice.text("last").wait_for()
    assert alice.log.locator(".text").all_text_contents() == ["now so (edited)", DELETED, "last"]


def test_a_deleted_message_says_by_whom_if_not_by_its_author(visit: Visit) -> None:
    alice = visit()
    room = Scripted(alice).connect()
    for text in ("own", "by another"):
        room.say("bob", text)
    room.tell("deleted", {"id": 1, "username": "bob", "by": "bob"})
    room.tell("deleted", {"id": 2, "username": "bob", "by": "carol"})
    alice.log.get_by_text("Message deleted by carol").wait_for()
    assert alice.log.locator(".text").all_text_contents() == [DELETED, f"{DELETED} by carol"]
    assert menu(alice, f"{DELETED} by carol") == ["Copy link"]


def test_edits_and_deletions_do_not_count_and_a_deleted_message_counts_no_more(visit: Visit) -> None:
    alice = visit()
    room = Scripted(alice).connect()
    alice.page.evaluate(LOOK_AWAY)
    room.say("bob", "one")
    room.say("bob", "@alice two")
    room.tell("edited", {"id": 1, "username": "bob", "text": "uno", "by": "bob"})
    alice.text("uno (edited)").wait_for()
    assert unread(alice) == 2
    counts(alice.log.locator(".called"), 1)
    room.tell("deleted", {"id": 2, "username": "bob", "by": "bob"})
    counts(alice.log.locator(".called"), 0)
    assert unread(alice) == 1
    assert alice.page.title() == "(1) #general · chatroom"


def test_a_quote_in_the_field_goes_with_what_it_quotes(visit: Visit) -> None:
    alice = visit()
    room = Scripted(alice).connect()
    room.say("bob", "secret")
    choose(alice, "secret", "Reply")
    alice.page.keyboard.type("really?")
    assert field(alice) == "> secret\nreally?"
    room.tell("deleted", {"id": 1, "username": "bob", "by": "bob"})
    alice.text(DELETED).wait_for()
    assert field(alice) == "really?"


def test_the_up_key_edits_the_last_own_message_and_escape_leaves(visit: Visit) -> None:
    alice = visit()
    room = Scripted(alice).connect()
    alice.say("mine")
    alice.log.locator(".sent").wait_for()
    room.say("bob", "not mine")
    alice.field("Message").press("ArrowUp")
    assert field(alice) == "mine"
    alice.page.get_by_text("Editing: Esc leaves").wait_for()
    alice.field("Message").press("Escape")
    assert field(alice) == ""
    alice.field("Message").press("ArrowUp")
    alice.field("Message").fill("mine, better")
    alice.press("Save")
    alice.text("mine, better (edited)").wait_for()
    assert room.of("edit") == [{"id": 1, "text": "mine, better"}]
    assert field(alice) == ""
    assert alice.page.evaluate("state.outbox.size") == 0


def test_the_up_key_moves_in_a_text_and_needs_a_message(visit: Visit) -> None:
    alice = visit()
    room = Scripted(alice).connect()
    room.say("bob", "not mine")
    alice.text("not mine").wait_for()
    alice.field("Message").press("ArrowUp")
    assert field(alice) == ""
    alice.say("mine")
    counts(alice.log.locator(".sent"), 2)
    alice.field("Message").fill("draft")
    alice.field("Message").press("ArrowUp")
    assert field(alice) == "draft"


def test_a_draft_stays_while_a_message_is_edited(visit: Visit) -> None:
    alice = visit()
    Scripted(alice).connect()
    alice.say("mine")
    alice.log.locator(".sent").wait_for()
    alice.field("Message").fill("a draft")
    choose(alice, "mine", "Edit")
    alice.field("Message").press_sequentially("!")
    assert field(alice) == "mine!"
    assert "a draft" in alice.page.evaluate("sessionStorage['chatroom.drafts']")
    alice.press("Cancel")
    assert field(alice) == "a draft"


def test_an_edit_to_nothing_asks_whether_to_delete(visit: Visit) -> None:
    alice = visit()
    room = Scripted(alice).connect()
    alice.say("mine")
    alice.log.locator(".sent").wait_for()
    stop_clock(alice)
    alice.field("Message").press("ArrowUp")
    alice.field("Message").fill("")
    alice.press("Save")
    alice.page.get_by_role("dialog", name="Delete this message?").wait_for()
    alice.press("Delete")
    alice.log.get_by_text("deleting…").wait_for()
    alice.page.clock.run_for(5_000)
    alice.text(DELETED).wait_for()
    assert room.of("delete") == [{"id": 1}]
    assert room.of("edit") == []


def test_a_deletion_can_be_undone_before_it_is_sent(visit: Visit) -> None:
    alice = visit()
    room = Scripted(alice).connect()
    alice.say("mine")
    alice.log.locator(".sent").wait_for()
    stop_clock(alice)
    choose(alice, "mine", "Delete")
    alice.press("Undo")
    alice.page.clock.run_for(20_000)
    still(alice)
    assert room.of("delete") == []
    choose(alice, "mine", "Delete")
    alice.log.get_by_text("deleting…").wait_for()
    alice.page.clock.run_for(4_900)
    assert room.of("delete") == []
    alice.page.clock.run_for(200)
    alice.text(DELETED).wait_for()
    assert alice.log.get_by_text("deleting…").count() == 0


def test_leaving_a_room_sends_what_could_be_undone(visit: Visit) -> None:
    alice = visit()
    room = Scripted(alice).connect()
    alice.say("mine")
    alice.log.locator(".sent").wait_for()
    stop_clock(alice)
    choose(alice, "mine", "Delete")
    alice.switch("elsewhere")
    assert room.await_sent("delete") == [{"id": 1}]


def test_an_edit_outlives_a_lost_connection_under_its_cid(visit: Visit) -> None:
    alice = visit()
    room = Scripted(alice, edit=None).connect()
    alice.say("mine")
    alice.log.locator(".sent").wait_for()
    alice.field("Message").press("ArrowUp")
    alice.field("Message").fill("better")
    alice.press("Save")
    alice.log.get_by_text("sending…").wait_for()
    room.await_sent("edit")
    del room.answers["edit"]
    room.close(1012, "restarting")
    alice.text("better (edited)").wait_for()
    first, second = (frame["cid"] for frame in room.sent if frame["event"] == "edit")
    assert first == second
    assert alice.page.evaluate("state.outbox.size") == 0
    assert room.log[-1]["id"] == 2, "stored once"


def test_an_ack_is_an_answer_to_an_edit(visit: Visit) -> None:
    alice = visit()
    Scripted(alice, edit={"event": "ack", "data": {"id": 2, "duplicate": True}}).connect()
    alice.say("mine")
    alice.log.locator(".sent").wait_for()
    alice.field("Message").press("ArrowUp")
    alice.field("Message").fill("better")
    alice.press("Save")
    alice.page.wait_for_function("() => state.outbox.size === 0")
    counts(alice.log.locator(".sent"), 1)


def test_a_refused_edit_can_be_edited_again(visit: Visit) -> None:
    alice = visit()
    room = Scripted(alice, edit=refused("too_long", "Too long")).connect()
    alice.say("mine")
    alice.log.locator(".sent").wait_for()
    alice.field("Message").press("ArrowUp")
    alice.field("Message").fill("refused text")
    alice.press("Save")
    alice.log.get_by_text("not sent: Too long").wait_for()
    assert alice.log.locator(".text").all_text_contents() == ["mine"]
    del room.answers["edit"]
    alice.press("Edit")
    assert field(alice) == "refused text"
    alice.field("Message").fill("taken")
    alice.press("Save")
    alice.text("taken (edited)").wait_for()
    assert alice.log.get_by_text("not sent").count() == 0


def test_what_a_server_does_not_know_is_offered_no_more(visit: Visit) -> None:
    alice = visit()
    Scripted(alice, edit=refused("bad_event", "Unknown event: edit")).connect()
    alice.say("mine")
    alice.log.locator(".sent").wait_for()
    assert menu(alice, "mine") == ["Reply", "Copy text", "Copy link", "Edit", "Delete"]
    alice.page.get_by_role("menuitem", name="Edit").click()
    alice.field("Message").fill("other")
    alice.press("Save")
    alice.page.get_by_text("The server says: Unknown event: edit").wait_for()
    assert menu(alice, "mine") == ["Reply", "Copy text", "Copy link", "Delete"]
    assert alice.page.evaluate("state.outbox.size") == 0


def test_what_is_refused_for_one_message_is_offered_there_no_more(visit: Visit) -> None:
    alice = visit()
    Scripted(alice, edit=refused("forbidden", "Too old")).connect()
    for text in ("old", "new"):
        alice.say(text)
    counts(alice.log.locator(".sent"), 2)
    choose(alice, "old", "Edit")
    alice.field("Message").fill("other")
    alice.press("Save")
    alice.log.get_by_text("not sent: Too old").wait_for()
    alice.press("Discard")
    assert menu(alice, "old") == ["Reply", "Copy text", "Copy link"]
    alice.page.keyboard.press("Escape")
    assert menu(alice, "new") == ["Reply", "Copy text", "Copy link", "Edit", "Delete"]


def test_the_messages_of_others_are_theirs(visit: Visit) -> None:
    alice = visit()
    Scripted(alice).connect().say("bob", "of bob")
    assert menu(alice, "of bob") == ["Reply", "Copy text", "Copy link"]


def test_a_message_that_is_deleted_meanwhile_is_edited_no_more(visit: Visit) -> None:
    alice = visit()
    room = Scripted(alice).connect()
    alice.say("mine")
    alice.log.locator(".sent").wait_for()
    alice.field("Message").press("ArrowUp")
    room.tell("deleted", {"id": 1, "username": "alice", "by": "carol"})
    alice.log.get_by_text("Message deleted by carol").wait_for()
    assert field(alice) == ""
    alice.page.get_by_role("button", name="Send", exact=True).wait_for()


def test_the_menu_is_one_for_the_keyboard(visit: Visit) -> None:
    alice = visit()
    Scripted(alice).connect()
    alice.say("mine")
    alice.log.locator(".sent").wait_for()
    alice.field("Message").press("Alt+ArrowUp")
    focus = "document.activeElement.innerText"
    for end in ("Escape", "Tab"):
        alice.page.keyboard.press("Enter")
        alice.page.get_by_role("menu", name="More actions").wait_for()
        walked = []
        for step in ("ArrowDown", "ArrowUp", "ArrowUp", "ArrowDown", "ArrowUp"):
            alice.page.keyboard.press(step)
            walked.append(alice.page.evaluate(focus))
        assert walked == ["Copy text", "Reply", "Delete", "Reply", "Delete"]
        alice.page.keyboard.press(end)
        alice.page.get_by_role("menu").wait_for(state="hidden")
        assert alice.page.evaluate("document.activeElement.className").startswith("message")
    for key in ("Enter", "ArrowUp", "ArrowUp", "Enter"):
        alice.page.keyboard.press(key)
    assert field(alice) == "mine", "Edit"


def test_the_menu_comes_by_touch_and_stays_on_the_screen(visit: Visit) -> None:
    alice = visit(viewport={"width": 375, "height": 667}, has_touch=True, is_mobile=True)
    Scripted(alice).connect()
    alice.say("mine")
    alice.log.locator(".sent .text").tap()
    alice.page.get_by_role("button", name="More actions", exact=True).tap()
    box = alice.page.get_by_role("menu").bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 375
    assert box["y"] + box["height"] <= 667
    alice.page.get_by_role("menuitem", name="Edit", exact=True).tap()
    holds(alice.field("Message"), "mine")  # a tap becomes a click by and by
