"""Further back: search, days, unread messages, rooms that are followed where the server can."""

from __future__ import annotations

from tests.page.test_page_reading import GAP, LOOK_AWAY, LOOK_BACK, drawn, hear, say_many
from tests.support.browser import Visit, counts, says, still

WIDE = {"width": 1100, "height": 600}


def test_the_history_is_searched_page_by_page(visit: Visit) -> None:
    bob = visit().connect("bob", "search")
    say_many(bob, 250)
    alice = visit(viewport=WIDE).connect("alice", "search")
    alice.press("Search")
    alice.page.get_by_label("Search for").fill("MESSAGE 7")
    alice.page.get_by_label("Search for").press("Enter")
    results = alice.page.get_by_role("dialog").get_by_role("listitem")
    counts(results, 11)  # 7 and 70 to 79
    alice.page.get_by_text("11 found, back to").wait_for()
    results.last.get_by_role("button").click()
    alice.log.locator(".found").get_by_text("message 7", exact=True).wait_for()


def test_a_search_can_be_cancelled(visit: Visit) -> None:
    say_many(visit().connect("bob", "cancelled"), 250)
    alice = visit().connect("alice", "cancelled")
    drawn(alice)
    alice.page.evaluate(
        """() => {
            [window.meant, window.asked] = [transmit, []];
            transmit = (event, ...more) => {
                if (event !== 'history') return;
                asked.push(more);
                window.go = () => meant(event, ...more);
            };
        }"""
    )
    alice.press("Search")
    alice.page.get_by_label("Search for").fill("nothing like it")
    alice.page.get_by_label("Search for").press("Enter")
    alice.page.get_by_text("0 found, back to").wait_for()
    alice.press("Cancel")
    alice.page.evaluate("go()")
    alice.page.wait_for_function("() => state.asked.size === 0")
    still(alice)
    assert len(alice.page.evaluate("asked")) == 1


def test_a_message_far_back_is_loaded_and_shown(visit: Visit) -> None:
    say_many(visit().connect("bob", "far-back"), 250)
    alice = visit(viewport=WIDE).connect("alice", "far-back")
    drawn(alice)
    alice.page.evaluate("goTo(20)")
    found = alice.log.locator(".found")
    found.get_by_text("message 19", exact=True).wait_for()
    box = found.bounding_box()
    assert box is not None
    assert 0 < box["y"] < 600
    assert alice.page.evaluate("[state.following, state.room.log.length]") == [False, 250]
    alice.page.get_by_role("dialog").wait_for(state="hidden")


def test_a_day_is_found(visit: Visit) -> None:
    alice = visit(viewport=WIDE, timezone_id="UTC").connect("alice", "days")
    alice.page.evaluate(
        """() => {
            window.asked = 0;
            const [first, day] = [Date.UTC(2026, 0, 1), 86_400_000];
            const at = id => {
                const days = Math.floor(id / 10);
                return {id, username: 'bob', text: `day ${days}`, ts: first + days * day};
            };
            const all = Array.from({length: 600}, (_, index) => at(index + 1));
            transmit = (event, {before, limit} = {}, cid) => {
                if (event !== 'history') return;
                asked += 1;
                const messages = all.filter(({id}) => id < before).slice(-limit);
                const data = {messages, more: messages[0]?.id > 1};
                queueMicrotask(() => receive(JSON.stringify({event: 'history', data, cid})));
            };
            state.room.lastId = 600;
            state.room.more = true;
        }"""
    )
    alice.press("More")
    alice.press("Jump to date")
    alice.page.get_by_label("Jump to date").fill("2026-01-31")
    alice.page.get_by_role("dialog").get_by_role("button", name="Search").click()
    alice.log.locator(".found").get_by_text("day 30", exact=True).wait_for()
    alice.log.locator(".day", has_text="January 31, 2026").wait_for()
    assert alice.page.evaluate("asked") <= 4


def test_the_button_leads_to_the_first_unread_and_then_to_the_end(visit: Visit) -> None:
    bob = visit().connect("bob", "button")
    say_many(bob, 60)
    alice = visit(viewport=WIDE).connect("alice", "button")
    drawn(alice)
    alice.page.evaluate("$('scroll').scrollTop = 0")
    alice.page.get_by_role("button", name="To the end").wait_for()
    say_many(bob, 80, " anew")
    down = alice.page.get_by_role("button", name="80 new")
    down.wait_for()
    drawn(alice)  # 20 rows a frame: the place of the first one is known only where the others are
    down.click()
    alice.log.locator(".found").get_by_text("message 0 anew", exact=True).wait_for()
    assert alice.page.evaluate(GAP) > 500
    down.click()
    alice.page.wait_for_function(f"() => {GAP} < 2")
    alice.page.wait_for_function("() => document.title === '#button · chatroom'")


def test_rooms_show_what_is_new_where_the_server_tells_it(visit: Visit) -> None:
    alice = visit(viewport=WIDE).connect("alice", "followed")
    alice.switch("here")
    says(alice, "Connected to #here as alice.")
    epoch = alice.page.evaluate("state.recent.find(one => one.name === 'followed').epoch")

    def activity(messages: int, *mentions: str) -> None:
        data = {"room": "followed", "last_id": messages, "messages": messages, "mentions": list(mentions)}
        hear(alice, {"event": "activity", "data": {**data, "epoch": epoch}})

    activity(2)
    rooms = alice.page.get_by_role("navigation")
    rooms.get_by_text("2", exact=True).wait_for()
    activity(3, "alice")
    rooms.get_by_text("@3", exact=True).wait_for()
    alice.page.keyboard.press("Control+k")
    alice.page.get_by_role("dialog").get_by_text("@3", exact=True).wait_for()
    alice.page.get_by_role("dialog").get_by_role("button", name="followed").click()
    says(alice, "Connected to #followed as alice.")
    alice.page.wait_for_function("() => document.querySelector('nav .count:not(:empty)') === null")


def test_newer_events_are_tried_once_and_a_server_without_them_costs_nothing(visit: Visit) -> None:
    alice = visit().connect("alice", "old-server")
    alice.page.evaluate(
        """() => {
            [window.meant, window.asked] = [transmit, []];
            transmit = (event, data, cid) => {
                asked.push(event);
                if (event !== 'follow') return meant(event, data, cid);
                const error = {event: 'error', data: {message: 'Unknown'}, code: 'bad_event', cid};
                return queueMicrotask(() => receive(JSON.stringify(error)));
            };
        }"""
    )
    for room in ("old-one", "old-two", "old-three"):
        alice.switch(room)
        says(alice, f"Connected to #{room} as alice.")
    assert alice.page.evaluate("asked.filter(event => event === 'follow').length") == 1
    assert alice.page.evaluate("state.notice.bad") is False


def test_a_new_room_is_entered_by_the_quick_switcher(visit: Visit) -> None:
    alice = visit().connect("alice", "quick")
    alice.page.get_by_title("Go to another room (Ctrl+K)").click()
    alice.page.keyboard.type("brand-new")
    alice.page.keyboard.press("Enter")
    says(alice, "Connected to #brand-new as alice.")
    alice.page.keyboard.press("Control+k")
    alice.page.keyboard.press("ArrowDown")
    alice.page.keyboard.press("Enter")
    says(alice, "Connected to #quick as alice.")


def test_what_is_missed_is_counted_on_coming_back(visit: Visit) -> None:
    alice = visit().connect("alice", "counted")
    alice.page.evaluate(LOOK_AWAY)
    bob = visit().connect("bob", "counted")
    bob.say("one")
    alice.page.get_by_role("navigation").get_by_text("1", exact=True).wait_for()
    alice.page.evaluate(LOOK_BACK)
    alice.page.get_by_role("navigation").get_by_text("1", exact=True).wait_for(state="hidden")
