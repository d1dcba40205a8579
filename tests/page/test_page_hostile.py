"""What an odd server, a full room, a hidden tab and a broken memory do to the page."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from tests.page.test_page_reading import drawn, hear, settled
from tests.support.browser import Visit, Visitor, counts, says, still, stop_clock

if TYPE_CHECKING:
    from collections.abc import Callable

FEED = """([from, before, text]) => {
    for (let id = from; id < before; id++) receive(JSON.stringify(
        {event: 'message', data: {username: 'bob', text: text.replace('#', id)}, id, ts: 1.7e12 + id}));
}"""
BOTTOM = "$('scroll').getBoundingClientRect().bottom"


def feed(visitor: Visitor, start: int, end: int, text: str = "message #") -> None:
    """Messages of bob's with these ids, as if they came from the server."""
    visitor.page.evaluate(FEED, [start, end, text])


def asks_for_history(visitor: Visitor, before: int) -> None:
    """As if the page had asked by the cid `h`, and the answer is still to come."""
    visitor.page.evaluate(
        """before => {
            state.room.loading = true;
            state.asked.set('h', {event: 'history', room: state.room, before});
        }""",
        before,
    )


def test_a_history_that_is_refused_is_not_asked_for_in_a_loop(visit: Visit) -> None:
    alice = visit().connect("alice", "loop")
    alice.page.evaluate(
        """() => {
            window.asked = 0;
            transmit = (event, data, cid) => {
                asked += event === 'history';
                if (event === 'history') queueMicrotask(() => receive(JSON.stringify({event: 'error',
                    data: {message: 'Try later'}, code: 'unavailable', retry: true, cid})));
            };
            state.room.more = true;
            render();
        }"""
    )
    says(alice, "Older messages can't be loaded")
    still(alice, 20)  # it would ask in every frame
    assert alice.page.evaluate("asked") == 1


def test_a_message_that_failed_stands_under_its_own_name(visit: Visit) -> None:
    alice = visit().connect("alice", "whose")
    alice.say("one")
    counts(alice.log.locator(".sent"), 1)
    alice.page.evaluate("transmit = () => 0")
    alice.say("two")
    alice.log.locator(".pending").wait_for()
    alice.page.evaluate("for (const entry of waiting()) refuse(entry, 'too long', {}); render()")
    alice.log.locator(".failed").wait_for()
    feed(alice, 2, 3)
    alice.text("message 2").wait_for()
    assert alice.log.locator(".head .text").all_text_contents() == ["one", "message 2", "two"]


def test_the_place_is_kept_while_another_room_is_tried_in_vain(visit: Visit) -> None:
    alice = visit(viewport={"width": 900, "height": 500}).connect("alice", "place")
    feed(alice, 1, 801, "message #\nand\nmore")
    drawn(alice)
    alice.page.evaluate("$('scroll').scrollTop = $('scroll').scrollHeight / 2")
    settled(alice)
    height = alice.page.evaluate("$('scroll').scrollHeight")
    alice.page.evaluate("lost(4503, 'gone')")
    alice.enter("alice", room="x" * 65)
    says(alice, "This name can't be used")
    still(alice)
    alice.page.evaluate("state.session.room = 'place', render()")
    still(alice)
    settled(alice)
    assert abs(alice.page.evaluate("$('scroll').scrollHeight") - height) < 2
    alice.forgive("console: Failed to load resource")


def test_who_comes_back_after_thousands_of_messages_sees_the_newest_at_once(visit: Visit) -> None:
    alice = visit().connect("alice", "behind")
    feed(alice, 1, 51)
    drawn(alice)
    feed(alice, 51, 5_051)  # as while the tab was hidden, where frames are a second or a minute apart
    still(alice)  # too few frames for all of them
    assert alice.page.evaluate("view.to === state.room.start + state.room.log.length")


def test_a_frame_that_never_comes_does_not_stop_a_hidden_tab(visit: Visit) -> None:
    """A tab that is left loses the focus, a frame is asked for; then it is hidden, and frames are paused."""
    alice = visit().connect("alice", "paused")
    alice.page.wait_for_function("() => !view.scheduled")
    alice.page.evaluate(
        """() => {
            window.requestAnimationFrame = () => 0;
            document.hasFocus = () => false;
            window.dispatchEvent(new Event('blur'));
            Object.defineProperty(document, 'hidden', {value: true});
            document.dispatchEvent(new Event('visibilitychange'));
        }"""
    )
    feed(alice, 1, 2)
    alice.page.wait_for_function("() => document.title === '(1) #paused · chatroom'", polling=50)


def test_tall_messages_do_not_push_the_newest_out_of_reach(visit: Visit) -> None:
    """A layout ends at 2^25 pixels; 4,000 characters may be 4,000 lines."""
    alice = visit().connect("alice", "tall")
    feed(alice, 1, 381, "a" + "\n" * 3_997 + "b")
    feed(alice, 381, 382, "the newest")
    drawn(alice)
    settled(alice)
    still(alice)
    row = alice.text("the newest").evaluate("row => row.getBoundingClientRect().bottom")
    assert row <= alice.page.evaluate(BOTTOM)


def leaves_by_arrow(visitor: Visitor) -> None:
    visitor.page.evaluate("$('scroll').focus()")
    visitor.page.keyboard.press("ArrowUp")


def leaves_by_touchpad(visitor: Visitor) -> None:
    visitor.page.mouse.move(500, 300)
    for _ in range(15):
        visitor.page.mouse.wheel(0, -8)
        still(visitor, 1)


@pytest.mark.parametrize(
    ("leaves", "every"), [(leaves_by_arrow, 6), (leaves_by_touchpad, 6), (leaves_by_touchpad, 1)]
)
def test_a_reader_can_leave_the_end_while_messages_stream_in(
    visit: Visit, leaves: Callable[[Visitor], None], every: int
) -> None:
    """A message comes with every so many frames."""
    alice = visit().connect("alice", "stream")
    feed(alice, 1, 101)
    drawn(alice)
    alice.page.evaluate(
        """every => {
            let [id, frame] = [100, 0];
            const hear = () => { id += 1; receive(JSON.stringify(
                {event: 'message', data: {username: 'bob', text: 'on'}, id, ts: 1.7e12})); };
            const next = () => {
                if (++frame % every === 0) hear();
                requestAnimationFrame(next);
            };
            next();
        }""",
        every,
    )
    still(alice, 20)
    leaves(alice)
    alice.page.wait_for_function("() => !state.following")
    still(alice, 30)
    assert not alice.page.evaluate("state.following")


@pytest.mark.parametrize(
    ("storage", "key", "value"),
    [
        ("sessionStorage", "outbox", "[null]"),
        ("localStorage", "form", '{"later":"x"}'),
        ("localStorage", "form", '"x"'),
        ("localStorage", "recent", "[null]"),
        ("localStorage", "recent", '[{"name":5},{"name":"b"}]'),
    ],
)
def test_a_broken_memory_breaks_nothing(visit: Visit, storage: str, key: str, value: str) -> None:
    alice = visit()
    alice.page.evaluate(f"([key, value]) => {storage}.setItem(`chatroom.${{key}}`, value)", [key, value])
    alice.page.reload()
    alice.connect("alice", "memory")
    still(alice)


def test_what_waits_is_drawn_whatever_its_time_is_said_to_be(visit: Visit) -> None:
    alice = visit().connect("alice", "memory")
    alice.page.evaluate(
        """() => tab.keep('outbox', [{
            kind: 'message', state: 'failed', cid: 'c', username: 'alice', text: 'kept', reason: '', ts: 'x',
            room: 'memory', base: state.session.base}])"""
    )
    alice.page.reload()
    alice.page.get_by_text("kept", exact=True).wait_for()


@pytest.mark.parametrize(
    "frame",
    [
        {"event": "message", "data": {"username": "bob", "text": "x"}, "id": 1, "ts": []},
        {"event": "message", "data": {"username": "bob", "text": "x"}, "id": 1, "ts": "0x10"},
        {"event": "switched", "data": {"room": 5}, "epoch": "e", "last_id": 0, "replay": 0},
        {"event": "switched", "data": {}, "epoch": "e", "last_id": 0, "replay": 0},
        {"event": "welcome"},
        {"event": {"toString": 1, "valueOf": 1}},
        {"event": "joined", "data": {"username": {"toString": 1, "valueOf": 1}}},
    ],
    ids=str,
)
def test_an_odd_frame_stops_nothing(visit: Visit, frame: dict[str, object]) -> None:
    alice = visit().connect("alice", "odd")
    alice.page.evaluate("text => { receive(text); }", json.dumps(frame))
    still(alice)
    feed(alice, 2, 3)
    alice.text("message 2").wait_for()
    alice.overlook("console: TypeError")


def test_an_odd_item_of_history_does_not_end_the_loading(visit: Visit) -> None:
    alice = visit().connect("alice", "item")
    feed(alice, 5, 6)
    asks_for_history(alice, 5)
    hear(alice, {"event": "history", "data": {"messages": [None], "more": True}, "cid": "h"})
    assert not alice.page.evaluate("state.room.loading")


def test_history_that_comes_after_a_cut_leaves_no_silent_hole(visit: Visit) -> None:
    alice = visit().connect("alice", "hole")
    alice.page.evaluate("state.room.lastId = 1000")
    feed(alice, 1_001, 1_601)
    asks_for_history(alice, 1001)
    alice.page.evaluate("shorten(state.room, 300)")
    messages = [{"id": n, "ts": 10**12, "username": "bob", "text": "old"} for n in range(901, 1_001)]
    hear(alice, {"event": "history", "data": {"messages": messages, "more": True}, "cid": "h"})
    ids = alice.page.evaluate("state.room.log.map(entry => entry.id ?? null)")
    assert all(later == earlier + 1 for earlier, later in pairwise(ids))


def test_what_waits_goes_out_when_a_switch_came_to_nothing(visit: Visit) -> None:
    """The wish outlives a lost connection: the same room again is answered with an ack."""
    alice = visit().connect("alice", "same")
    alice.page.evaluate(
        """() => {
            const entry = messageEntry({username: 'alice', text: 'waits', cid: newCid()});
            Object.assign(entry, {state: 'pending', base: state.session.base, room: 'same'});
            state.outbox.set(entry.cid, entry);
            switchRoom('same');
        }"""
    )
    alice.page.wait_for_function("() => !state.wish")
    alice.log.locator(".sent", has_text="waits").wait_for()


def test_a_network_that_is_back_does_not_overrule_retry_after(visit: Visit) -> None:
    alice = visit().connect("alice", "patience")
    stop_clock(alice)
    alice.page.evaluate("say('busy'), tryLater(3600), window.dispatchEvent(new Event('online'))")
    alice.page.clock.run_for(3_500_000)
    assert alice.page.evaluate("state.phase") == "waiting"


def test_a_message_that_the_server_can_not_take_fails_and_lets_the_others_through(visit: Visit) -> None:
    """It is larger than a frame may be (1009), and would be sent again with every new connection."""
    alice = visit().connect("alice", "large")
    alice.page.evaluate("state.limits = {}")  # a server that tells none
    alice.say("é" * 40_000)
    alice.log.get_by_text("not sent: ").wait_for()
    alice.say("small")
    alice.log.locator(".sent", has_text="small").wait_for()
    alice.page.reload()
    alice.text("small").wait_for()
    alice.press("Discard")
    counts(alice.log.locator(".failed"), 0)


def test_who_types_right_after_sending_is_seen(visit: Visit) -> None:
    alice = visit().connect("alice", "again")
    bob = visit().connect("bob", "again")
    for visitor in (alice, bob):
        stop_clock(visitor)  # so that neither age brings the mark, nor takes it away
    alice.field("Message").press_sequentially("hello")
    alice.field("Message").press("Enter")
    bob.text("hello").wait_for()
    alice.field("Message").press_sequentially("and")
    bob.page.get_by_text("alice is typing…").wait_for()
