"""A reader keeps the place: what is older comes without a jump, what is new is counted, marked and waits."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.browser import Visit, Visitor, counts, says

GAP = "(box => box.scrollHeight - box.scrollTop - box.clientHeight)($('scroll'))"
DRAWN = """state.room.lastId >= state.room.liveAfter && view.from === state.room.start
    && view.to === view.from + state.room.log.length"""
"""All that was there before has come, and has its row; before it comes, an empty log is drawn."""
NOTHING_IS_DUE = """async () => {
    for (let frame = 0; frame < 6; frame++) {
        await new Promise(requestAnimationFrame);
        if (view.due.size) return false;
    }
    return true;
}"""
LOOK_AWAY = "document.hasFocus = () => false; window.dispatchEvent(new Event('blur'))"
LOOK_BACK = "document.hasFocus = () => true; window.dispatchEvent(new Event('focus'))"


def say_many(visitor: Visitor, count: int, more: str = "") -> None:
    """So many messages, all of them stored."""
    visitor.page.evaluate(
        "([count, more]) => { for (let n = 0; n < count; n++) sendMessage(`message ${n}${more}`); }",
        [count, more],
    )
    visitor.page.wait_for_function("() => state.outbox.size === 0")


def drawn(visitor: Visitor, last: int = 0) -> None:
    """Wait until what was there before is drawn, and all that came, up to the message `last` at least."""
    visitor.page.wait_for_function(f"last => state.room.lastId >= last && {DRAWN}", arg=last)


def settled(visitor: Visitor) -> None:
    """Wait until the rows around the view have come, and those far off have gone."""
    visitor.page.wait_for_function(
        """() => [...$('rows').children].every(chunk => {
            const {top, bottom} = chunk.getBoundingClientRect();
            const view = $('scroll').getBoundingClientRect();
            const far = bottom < view.top - NEAR || top > view.bottom + NEAR;
            const atEnd = !chunk.nextSibling || !chunk.previousSibling;
            return atEnd || chunk.childElementCount === (far ? 0 : CHUNK);
        })"""
    )


def told_of_calls(visitor: Visitor) -> None:
    """Wait until the page has told of all mentions that came, if it does."""
    # The locks are asked for in the order of the calls: an own one tells that they are through.
    visitor.page.evaluate("async () => { for (let n = 0; n < 5; n++) await navigator.locks.query(); }")


def hear(visitor: Visitor, *frames: dict[str, Any]) -> None:
    """Frames as if they came from the server, all at once."""
    visitor.page.evaluate(
        "frames => { for (const frame of frames) receive(JSON.stringify(frame)); }", list(frames)
    )


def test_older_history_comes_by_scrolling_and_nothing_jumps(visit: Visit) -> None:
    say_many(visit().connect("bob", "older"), 400)
    alice = visit(viewport={"width": 800, "height": 500}).connect("alice", "older")
    drawn(alice)
    for loaded in (150, 250, 350, 400):
        before = alice.page.evaluate(
            """() => {
                $('scroll').scrollTop = 100;
                window.row = view.nodes.get(state.room.log[0]);
                return row.getBoundingClientRect().bottom;
            }"""
        )
        alice.page.wait_for_function("most => state.room.log.length >= most", arg=loaded)
        drawn(alice)
        assert abs(alice.page.evaluate("row.getBoundingClientRect().bottom") - before) < 3
    assert alice.log.locator(".text").all_text_contents() == [f"message {n}" for n in range(400)]
    alice.page.get_by_role("button", name="Load older").wait_for(state="hidden")


def test_a_reader_of_the_past_is_told_how_many_are_new(visit: Visit) -> None:
    alice = visit(viewport={"width": 1200, "height": 500}).connect("alice", "new")
    bob = visit().connect("bob", "new")
    say_many(bob, 40)
    alice.text("message 39").wait_for()
    alice.page.evaluate("$('scroll').scrollTop = 50")
    alice.page.get_by_role("button", name="To the end").wait_for()
    bob.say("hello")
    bob.say("are you there?")
    alice.text("are you there?").wait_for()
    alice.page.get_by_role("button", name="2 new").wait_for()
    assert alice.page.title() == "(2) #new · chatroom"
    assert alice.page.get_by_role("navigation").get_by_text("2", exact=True).is_visible()
    assert alice.page.evaluate("$('scroll').scrollTop") == 50
    marked = alice.log.locator(".message", has=alice.page.get_by_text("New", exact=True))
    assert marked.locator(".text").all_text_contents() == ["hello"]
    alice.page.get_by_role("button", name="2 new").click()
    alice.page.wait_for_function(f"() => {GAP} < 2")
    alice.page.wait_for_function("() => document.title === '#new · chatroom'")
    counts(marked, 1)  # it stays until the reader speaks
    alice.say("yes")
    counts(marked, 0)


def test_what_comes_while_one_looks_elsewhere_is_unread(visit: Visit) -> None:
    alice = visit().connect("alice", "away")
    bob = visit().connect("bob", "away")
    alice.page.evaluate(LOOK_AWAY)
    bob.say("one")
    bob.say("two")
    alice.text("two").wait_for()
    alice.page.wait_for_function("() => document.title.startsWith('(2) ')")
    alice.page.evaluate(LOOK_BACK)
    alice.page.wait_for_function("() => document.title === '#away · chatroom'")
    assert alice.log.locator(".fresh").count() == 1
    bob.say("three")
    alice.text("three").wait_for()
    assert alice.log.locator(".message", has=alice.page.locator(".fresh")).locator(
        ".text"
    ).all_text_contents() == ["one"]


def test_what_came_since_the_last_visit_is_marked(visit: Visit) -> None:
    alice = visit().connect("alice", "visits")
    bob = visit().connect("bob", "visits")
    bob.say("seen")
    alice.text("seen").wait_for()
    alice.press("Leave")
    bob.say("missed")
    bob.text("missed").wait_for()
    alice.press("Connect")
    alice.text("missed").wait_for()
    marked = alice.log.locator(".message", has=alice.page.locator(".fresh"))
    assert marked.locator(".text").all_text_contents() == ["missed"]


def test_a_replay_that_comes_in_pieces_is_marked_at_its_first_new_message(visit: Visit) -> None:
    alice = visit().connect("alice", "pieces")
    alice.page.evaluate(
        """async () => {
            const hear = async frame => {
                receive(JSON.stringify(frame));
                await new Promise(done => requestAnimationFrame(() => setTimeout(done)));
            };
            const {epoch} = state.room;
            disk.keep('recent', [{base: state.session.base, user: 'alice', name: 'pieces', epoch, read: 1}]);
            state.recent = recalled();
            state.room.read = 0;
            state.rooms.clear();
            const welcome = {event: 'welcome', data: {members: []}, room: 'pieces', username: 'alice', epoch};
            await hear({...welcome, last_id: 3, replay: 3});
            for (const id of [1, 2, 3]) {
                await hear({event: 'message', data: {username: 'bob', text: `m${id}`}, id, ts: 1e12});
            }
        }"""
    )
    assert alice.page.evaluate("[state.room.mark.text, state.room.read, state.room.unread]") == ["m2", 3, 0]


def test_rooms_are_remembered_and_come_back_with_their_place(visit: Visit) -> None:
    alice = visit().connect("alice", "north")
    alice.say("in the north")
    alice.log.locator(".sent").wait_for()
    alice.switch("south")
    says(alice, "Connected to #south as alice.")
    rooms = alice.page.get_by_role("navigation")
    assert rooms.get_by_role("button").all_text_contents() == ["north", "south"]
    bob = visit().connect("bob", "north")
    bob.say("meanwhile")
    bob.log.locator(".sent", has_text="meanwhile").wait_for()
    rooms.get_by_role("button", name="north").click()
    says(alice, "Connected to #north as alice.")
    alice.text("meanwhile").wait_for()
    assert alice.log.locator(".text").all_text_contents() == ["in the north", "meanwhile"]
    assert alice.page.evaluate("state.room.mark.text") == "meanwhile"
    alice.press("Leave")
    alice.page.reload()
    rooms.get_by_role("button", name="south").click()
    assert alice.field("Room").input_value() == "south"


def test_joins_and_leaves_are_folded_when_many(visit: Visit) -> None:
    alice = visit().connect("alice", "folded")
    hear(alice, *({"event": "joined", "data": {"username": f"user{n}"}} for n in range(20)))
    hear(alice, *({"event": "left", "data": {"username": f"user{n}"}} for n in range(3)))
    fold = alice.log.get_by_role("button", name="20 joined, 3 left")
    fold.wait_for()
    assert alice.log.get_by_text("user7 joined").count() == 0
    fold.focus()
    alice.page.keyboard.press("Enter")
    alice.log.get_by_text("user7 joined").wait_for()
    assert fold.get_attribute("aria-expanded") == "true"
    assert fold.evaluate("node => node === document.activeElement")


def test_a_frame_draws_a_bounded_number_of_rows_and_members(visit: Visit) -> None:
    alice = visit().connect("alice", "bounded")
    alice.page.evaluate(
        """() => {
            window.most = {rows: 0, members: 0};
            const [drawn, filled, made] = [draw, fill, memberNode];
            let rows = 0;
            fill = entry => { rows += 1; return filled(entry); };
            draw = () => {
                const before = $('members').childElementCount;
                rows = 0;
                drawn();
                most.rows = Math.max(most.rows, rows);
                most.members = Math.max(most.members, $('members').childElementCount - before);
            };
        }"""
    )
    text = "long " * 700
    frames = [
        {"event": "message", "data": {"username": "bob", "text": text}, "id": n, "ts": n}
        for n in range(1, 501)
    ]
    hear(alice, *frames, {"event": "members", "data": {"members": [f"user{n}" for n in range(1000)]}})
    drawn(alice)
    counts(alice.members, 1001)
    alice.page.evaluate("$('scroll').scrollTop = $('scroll').scrollHeight / 2")
    settled(alice)
    most = alice.page.evaluate("window.most")
    assert 0 < most["rows"] <= 20
    assert 0 < most["members"] <= 20


def test_rows_far_off_leave_the_document_and_come_back_unread_and_in_their_place(visit: Visit) -> None:
    alice = visit(viewport={"width": 900, "height": 500}).connect("alice", "far")
    say_many(visit().connect("bob", "far"), 450, "\nand more" * 30)
    drawn(alice, 450)
    settled(alice)
    assert alice.log.locator(".message").count() < 150
    height = alice.page.evaluate("$('scroll').scrollHeight")
    for message in (200, 10, 380, 449):
        alice.page.evaluate(
            "([n, all]) => { $('scroll').scrollTop = $('scroll').scrollHeight * n / all; }", [message, 450]
        )
        alice.log.get_by_text(f"message {message} and").wait_for()
        settled(alice)
        assert alice.log.locator(".message").count() < 150
        assert abs(alice.page.evaluate("$('scroll').scrollHeight") - height) < 2
        there = alice.page.evaluate("$('scroll').scrollTop / $('scroll').scrollHeight * 450")
        assert abs(there - message) < 1
        quiet = alice.page.evaluate("[...$('rows').children].map(chunk => chunk.ariaLive === 'off')")
        assert quiet.count(False) <= 3


def test_rows_that_are_selected_or_hold_the_focus_stay(visit: Visit) -> None:
    alice = visit(viewport={"width": 900, "height": 500}).connect("alice", "held")
    bob = visit().connect("bob", "held")
    say_many(bob, 100, "\nand more" * 30)
    bob.say("see https://example.org/here")
    say_many(bob, 200, "\nand more" * 30)
    drawn(alice, 301)
    link = "[...$('rows').querySelectorAll('a')].at(-1)"

    def go_and_come_back() -> None:
        for place in ("$('rows').children[5].offsetTop", "$('scroll').scrollHeight"):
            alice.page.evaluate(f"$('scroll').scrollTop = {place}")
            alice.page.wait_for_function(NOTHING_IS_DUE)
            alice.page.wait_for_function("$('rows').querySelectorAll('.message').length < 150")

    go_and_come_back()
    alice.page.wait_for_function(f"!{link}")
    alice.page.evaluate("$('scroll').scrollTop = $('rows').children[5].offsetTop")
    alice.log.get_by_role("link").focus()
    go_and_come_back()
    assert alice.page.evaluate("document.activeElement.textContent") == "https://example.org/here"
    alice.page.evaluate(f"document.activeElement.blur(), getSelection().selectAllChildren({link})")
    go_and_come_back()
    assert alice.page.evaluate("getSelection().toString()") == "https://example.org/here"
    alice.page.evaluate("getSelection().removeAllRanges()")
    go_and_come_back()
    alice.page.wait_for_function(f"!{link}")
    settled(alice)


def test_a_long_log_is_cut_at_its_old_end(visit: Visit) -> None:
    alice = visit().connect("alice", "cut")
    bob = visit().connect("bob", "cut")
    say_many(bob, 300)
    counts(alice.log.locator(".message"), 300)
    alice.page.evaluate("shorten(state.room, 120); render()")
    counts(alice.log.locator(".message"), 121)  # whole chunks go
    assert alice.log.locator(".text").first.text_content() == "message 179"
    alice.page.get_by_role("button", name="Load older").wait_for()
    alice.page.evaluate(
        """() => {
            const {room} = state;
            room.log.unshift(...Array.from({length: MOST_ENTRIES}, () => ({kind: 'note', key: 'gap'})));
            room.start -= MOST_ENTRIES;
        }"""
    )
    bob.say("one more")
    alice.page.wait_for_function("() => state.room.log.length - MOST_ENTRIES < CHUNK")


def test_a_mention_is_marked_told_and_heard_once_it_is_wished(visit: Visit) -> None:
    alice = visit(permissions=["notifications"]).connect("alice", "calls")
    bob = visit().connect("bob", "calls")
    alice.page.evaluate(
        """() => {
            window.told = [];
            window.chimes = 0;
            window.Notification = class { constructor(title, {body}) { told.push([title, body]); } };
            window.Notification.permission = 'granted';
            window.Notification.requestPermission = async () => 'granted';
            chime = () => { chimes += 1; };
        }"""
    )
    alice.page.evaluate(LOOK_AWAY)
    bob.say("@alice nothing was wished")
    alice.log.locator(".called").wait_for()
    told_of_calls(alice)
    alice.press("Notifications")
    alice.page.get_by_label("Show a notification").check()
    alice.page.get_by_label("Play a sound").check()
    alice.page.wait_for_function("() => state.notify")
    for text in ("alice is no mention", "@alicea neither", "but @Alice!"):
        bob.say(text)
    alice.text("but @Alice!").wait_for()
    told_of_calls(alice)
    assert alice.page.evaluate("[told, chimes]") == [[["bob in #calls", "but @Alice!"]], 1]
    assert alice.log.locator(".called .text").all_text_contents() == [
        "@alice nothing was wished",
        "but @Alice!",
    ]
    alice.page.reload()
    assert alice.page.evaluate("[state.notify, state.sound]") == [True, True]


@pytest.mark.parametrize("answer", ["denied", "default"])
def test_notifications_that_are_not_allowed_are_not_promised(visit: Visit, answer: str) -> None:
    alice = visit().connect("alice", "denied")
    alice.page.evaluate("answer => { Notification.requestPermission = async () => answer; }", answer)
    alice.press("Notifications")
    box = alice.page.get_by_label("Show a notification")
    box.click()
    alice.page.get_by_text("Your browser allows no notifications here.").wait_for()
    assert not box.is_checked()
