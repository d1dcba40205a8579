"""What a reader keeps when the window, the font or the form changes: the place, the end, the focus."""

from __future__ import annotations

import pytest

from tests.page.test_page_reading import GAP, drawn, hear, say_many, settled
from tests.support.browser import Visit, says, still

WIDE = {"width": 1100, "height": 700}
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
FOCUS = "document.activeElement.id || document.activeElement.textContent"


@pytest.mark.parametrize("width", [1000, 700, 640, 400])
def test_the_row_in_view_stays_there_when_the_window_gets_narrow(visit: Visit, width: int) -> None:
    alice = visit(viewport=WIDE).connect("alice", f"narrow-{width}")
    say_many(visit().connect("bob", f"narrow-{width}"), 200, " " + "and so on " * 12)
    drawn(alice, 200)
    alice.page.evaluate("$('scroll').scrollTop = $('scroll').scrollHeight / 2")
    settled(alice)
    still(alice)
    alice.page.evaluate("window.row = document.elementFromPoint(600, 350).closest('.message')")
    alice.page.set_viewport_size({"width": width, "height": 700})
    still(alice)
    top, bottom = alice.page.evaluate("[row.getBoundingClientRect().top, row.getBoundingClientRect().bottom]")
    assert bottom > 0
    assert top < 700


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((1280, 720), (641, 700)),
        ((1280, 720), (700, 720)),
        ((800, 600), (1280, 400)),
        ((1024, 768), (375, 667)),
    ],
)
def test_who_is_at_the_end_stays_there_when_the_window_changes(
    visit: Visit, before: tuple[int, int], after: tuple[int, int]
) -> None:
    alice = visit(viewport=dict(zip(("width", "height"), before, strict=True))).connect(
        "alice", f"resized-{before[0]}-{after[0]}"
    )
    say_many(visit().connect("bob", f"resized-{before[0]}-{after[0]}"), 60, " " + "and so on " * 12)
    drawn(alice, 60)
    alice.page.set_viewport_size(dict(zip(("width", "height"), after, strict=True)))  # type: ignore[arg-type]
    still(alice)
    assert alice.page.evaluate(GAP) < 2
    assert alice.page.evaluate("state.following")


def test_the_end_key_leads_to_the_end_while_messages_stream_in(visit: Visit) -> None:
    """The browser scrolls there by and by, to where the end was when the key was pressed."""
    alice = visit(viewport=WIDE).connect("alice", "endless")
    say_many(visit().connect("bob", "endless"), 60)
    alice.text("message 59").wait_for()
    alice.page.evaluate("$('scroll').scrollTop = 0")
    alice.page.get_by_role("button", name="To the end").wait_for()
    alice.page.evaluate(
        """() => {
            let [id, left] = [state.room.lastId, Infinity];
            addEventListener('keydown', () => { left = 100; });
            const say = () => { id += 1; receive(JSON.stringify(
                {event: 'message', data: {username: 'carol', text: 'on'}, id, ts: 1.7e12})); };
            const more = () => { say(); if (--left) requestAnimationFrame(more); else window.over = true; };
            more();
        }"""
    )
    alice.page.evaluate("$('scroll').focus()")
    alice.page.keyboard.press("End")
    alice.page.wait_for_function("() => window.over")
    still(alice)
    assert alice.page.evaluate("state.following")
    assert abs(alice.page.evaluate(GAP)) < 2


@pytest.mark.parametrize("width", [1280, 1024, 1001, 800, 641, 375])
def test_text_grows_with_the_readers_own_font(visit: Visit, width: int) -> None:
    alice = visit(viewport={"width": width, "height": 700}).connect("alice", f"font-{width}")
    alice.say("readable")
    alice.log.locator(".sent").wait_for()  # its receipt draws the text anew
    alice.page.evaluate("document.documentElement.style.fontSize = '200%'")  # as by the browser's settings
    still(alice)
    assert alice.text("readable").evaluate("node => getComputedStyle(node).fontSize") == "32px"
    assert alice.page.evaluate(OVERFLOW) <= 0
    box = alice.text("readable").bounding_box()
    assert box is not None
    assert box["width"] > 100, "there is room for the text"
    send = alice.page.get_by_role("button", name="Send", exact=True).bounding_box()
    assert send is not None
    assert send["x"] + send["width"] <= width


def test_the_focus_is_not_lost_with_what_had_it(visit: Visit) -> None:
    alice = visit(viewport=WIDE).connect("alice", "focus")
    hear(alice, {"event": "expiring", "data": {"in": 60}})
    alice.field("Token").fill("token-alice")
    alice.field("Token").press("Enter")
    says(alice, "Your token has been renewed.")
    assert alice.page.evaluate(FOCUS) == "scroll"
    alice.page.evaluate("state.room.more = true, state.room.loading = null, render()")  # by hand only
    alice.page.get_by_role("button", name="Load older").press("Enter")
    alice.page.get_by_role("button", name="Load older").wait_for(state="hidden")
    still(alice)
    assert alice.page.evaluate(FOCUS) == "scroll"


def test_a_recent_room_keeps_the_focus_while_messages_are_counted(visit: Visit) -> None:
    alice = visit(viewport=WIDE).connect("alice", "first")
    alice.switch("second")
    says(alice, "Connected to #second as alice.")
    bob = visit().connect("bob", "second")
    say_many(bob, 60)
    alice.text("message 59").wait_for()
    alice.page.evaluate("$('scroll').scrollTop = 0")
    alice.page.get_by_role("button", name="To the end").wait_for()
    alice.page.get_by_role("button", name="first", exact=True).focus()
    bob.say("one more")
    alice.page.get_by_role("button", name="1 new").wait_for()
    assert alice.page.evaluate(FOCUS) == "first"
    assert alice.page.get_by_role("navigation").get_by_text("1", exact=True).is_visible()


@pytest.mark.parametrize("width", [320, 375, 640, 1000])
def test_recent_rooms_are_within_reach_on_a_small_screen(visit: Visit, width: int) -> None:
    alice = visit(viewport={"width": width, "height": 700}).connect("alice", "here")
    rooms, drawer = alice.page.get_by_role("navigation"), alice.page.locator("#rail-open")
    for number in range(7):
        alice.switch(f"a-room-with-a-longer-name-{number}")
        says(alice, f"Connected to #a-room-with-a-longer-name-{number} as alice.")
    assert drawer.is_visible() is (width < 720)
    if drawer.is_visible():
        drawer.click()
    current = rooms.locator("[aria-current]").bounding_box()
    assert current is not None
    assert current["x"] >= -1, "where one is, is in view"
    assert current["x"] + current["width"] <= width + 1
    assert alice.page.evaluate(OVERFLOW) <= 0
    rooms.get_by_role("button", name="here", exact=True).click()
    says(alice, "Connected to #here as alice.")


def test_what_is_typed_into_a_field_that_goes_is_said_to_nobody(visit: Visit) -> None:
    """Half of a token, when the connection is lost in the middle of it."""
    alice = visit(viewport=WIDE).connect("alice", "half")
    hear(alice, {"event": "expiring", "data": {"in": 60}})
    alice.field("Token").wait_for()
    alice.field("Token").press_sequentially("sec")
    alice.page.evaluate("lost(1012, 'server is restarting')")
    alice.field("Token").wait_for(state="hidden")
    still(alice)
    alice.page.keyboard.type("ret")
    alice.page.keyboard.press("Enter")
    assert alice.field("Message").input_value() == ""
    says(alice, "Connected to #half as alice.")
    assert alice.log.locator(".text").count() == 0


def test_an_edit_of_the_form_ends_the_attempt_with_what_stood_there(visit: Visit) -> None:
    alice = visit(from_file=True)
    alice.field("Server").fill("ws://127.0.0.1:1")
    alice.field("Username").fill("alice")
    alice.field("Token").fill("token-alice")
    alice.press("Connect")
    says(alice, "can't be reached. Trying again")
    alice.field("Token").press_sequentially("x")
    assert alice.page.evaluate("state.phase") == "idle"
    alice.overlook(
        "console: Failed to load resource",
        "request to http://127.0.0.1:1/",
        "console: WebSocket",
        "request to ws://127.0.0.1:1/",
    )
