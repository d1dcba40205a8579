"""Time and networks as they are: clocks are set, machines sleep, tabs are left, networks go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.page.test_page_reading import LOOK_AWAY, LOOK_BACK
from tests.support.browser import Visit, Visitor, counts, says, still, stop_clock

if TYPE_CHECKING:
    from playwright.sync_api import WebSocketRoute

SET_BACK = """() => {
    const before = Date.now;
    Date.now = () => before() - 3_600_000;
}"""
COUNT_PINGS = """() => {
    [window.pings, window.meant] = [0, transmit];
    transmit = (event, ...more) => { pings += event === 'ping'; meant(event, ...more); };
}"""


def quiet(visitor: Visitor) -> None:
    """Wait until all that was asked is answered: an answer, too, is a sign of life."""
    visitor.page.wait_for_function("() => state.asked.size === 0")


def test_a_clock_that_is_set_back_hides_no_dead_link(visit: Visit) -> None:
    def answer_no_ping(socket: WebSocketRoute) -> None:
        server = socket.connect_to_server()
        socket.on_message(lambda text: None if '"ping"' in str(text) else server.send(text))

    alice = visit()
    stop_clock(alice)
    alice.page.route_web_socket("**/*", answer_no_ping)
    alice.page.reload()
    alice.connect("alice", "set-back")
    quiet(alice)
    alice.page.evaluate(SET_BACK)
    alice.page.clock.run_for(45_000)
    assert alice.page.evaluate("state.tried.some(text => text.includes('connection ended: 1006'))")
    alice.overlook("console: ")


def test_typing_is_told_whatever_the_clock_says(visit: Visit) -> None:
    alice = visit().connect("alice", "marks")
    stop_clock(alice)
    alice.page.evaluate("window.typings = 0, transmit = event => { typings += event === 'typing'; }")
    alice.page.evaluate("typed('a')")
    alice.page.evaluate(SET_BACK)
    alice.page.clock.run_for(3_000)
    alice.page.evaluate("typed('ab')")
    assert alice.page.evaluate("typings") == 2


def test_a_machine_that_slept_asks_at_once(visit: Visit) -> None:
    alice = visit()
    stop_clock(alice)
    alice.page.reload()
    alice.connect("alice", "slept")
    alice.page.clock.run_for(5_000)
    alice.page.evaluate(COUNT_PINGS)
    alice.page.clock.fast_forward(600_000)  # timers fire once, as after a sleep
    assert alice.page.evaluate("pings") >= 1
    alice.page.wait_for_function("() => state.heard >= state.pinged")
    assert alice.page.evaluate("state.phase") == "online"


def test_a_silent_link_is_noticed_in_a_throttled_tab(visit: Visit) -> None:
    """Timers of a hidden tab may fire once a minute: each look is late, and the second one knows."""
    alice = visit()
    stop_clock(alice)
    alice.page.reload()
    alice.connect("alice", "throttled")
    quiet(alice)
    alice.page.evaluate("transmit = () => 0")
    alice.page.clock.fast_forward(60_000)
    assert alice.page.evaluate("state.phase") == "online"
    alice.page.clock.fast_forward(60_000)
    assert alice.page.evaluate("state.phase") != "online"


def test_times_follow_a_change_of_the_zone(visit: Visit) -> None:
    alice = visit(locale="en-GB").connect("alice", "zone")
    zone = alice.context.new_cdp_session(alice.page)
    zone.send("Emulation.setTimezoneOverride", {"timezoneId": "Europe/Vienna"})
    alice.page.evaluate("watch()")
    alice.page.evaluate(
        """receive(JSON.stringify({event: 'message', data: {username: 'bob', text: 'when'}, id: 1,
            ts: Date.UTC(2026, 5, 1, 23, 30)}))"""
    )
    alice.log.locator(".clock", has_text="01:30").wait_for()
    assert "2 June" in (alice.log.locator(".day").text_content() or "")
    zone.send("Emulation.setTimezoneOverride", {"timezoneId": ""})
    zone.send("Emulation.setTimezoneOverride", {"timezoneId": "America/New_York"})
    alice.page.evaluate("watch()")
    alice.log.locator(".clock", has_text="19:30").wait_for()
    assert "1 June" in (alice.log.locator(".day").text_content() or "")


def test_whoever_looks_again_does_not_wait_for_the_back_off(visit: Visit) -> None:
    alice = visit().connect("alice", "again")
    alice.page.evaluate(LOOK_AWAY)
    stop_clock(alice)
    alice.page.evaluate("Math.random = () => 1, state.attempt = 9, state.since = now(), lost(1006, '')")
    assert alice.page.evaluate("state.phase") == "waiting"
    alice.page.clock.run_for(2_000)
    alice.page.evaluate(LOOK_BACK)
    says(alice, "Connected to #again as alice.")


def test_a_network_that_is_back_is_used_at_once(visit: Visit) -> None:
    alice = visit().connect("alice", "network")
    stop_clock(alice)
    alice.page.evaluate(
        "Math.random = () => 1, state.attempt = 9, window.dispatchEvent(new Event('offline'))"
    )
    says(alice, "No connection. Trying again in ")
    alice.page.get_by_role("button", name="Retry now", exact=True).wait_for()
    assert alice.page.locator("#members").evaluate("node => getComputedStyle(node).opacity") < "1"
    assert "ws:" not in alice.page.locator("body").inner_text()
    alice.page.clock.run_for(2_000)
    alice.page.evaluate("window.dispatchEvent(new Event('online'))")
    says(alice, "Connected to #network as alice.")


def test_the_seconds_are_counted_down_and_not_read_out(visit: Visit) -> None:
    alice = visit().connect("alice", "seconds")
    stop_clock(alice)
    alice.page.evaluate("Math.random = () => 0.525, state.attempt = 9, state.since = now(), lost(1006, '')")
    says(alice, "Trying again in 10 s")
    alice.page.clock.run_for(3_000)
    says(alice, "Trying again in 7 s")
    assert alice.page.evaluate("$('status').ariaLive") == "off"


def test_a_page_that_comes_back_from_the_cache_comes_in_again(visit: Visit) -> None:
    alice = visit().connect("alice", "cached")
    bob = visit().connect("bob", "cached")
    alice.page.evaluate("window.dispatchEvent(new PageTransitionEvent('pagehide', {persisted: true}))")
    assert alice.page.evaluate("[state.phase, state.socket]") == ["waiting", None]
    bob.say("meanwhile")
    alice.page.evaluate("window.dispatchEvent(new PageTransitionEvent('pageshow', {persisted: true}))")
    alice.text("meanwhile").wait_for()


def test_an_expiring_token_is_counted_down(visit: Visit) -> None:
    alice = visit().connect("alice", "expiring")
    stop_clock(alice)
    alice.page.evaluate("receive(JSON.stringify({event: 'expiring', data: {in: 60}}))")
    says(alice, "Your token expires in 60 s.")
    alice.page.clock.run_for(18_000)
    says(alice, "Your token expires in 42 s.")
    alice.field("Token").fill("token-alice")
    alice.press("Connect")
    says(alice, "Your token has been renewed.")
    alice.field("Token").wait_for(state="hidden")


def test_a_diagnosis_tells_what_was_tried_and_no_token(visit: Visit) -> None:
    alice = visit(permissions=["clipboard-read", "clipboard-write"]).connect("alice", "details")
    stop_clock(alice)
    alice.page.evaluate(
        "Math.random = () => 1, state.attempt = 9, state.since = now(), lost(1006, 'gone with token-alice')"
    )
    alice.press("Copy details")
    alice.page.wait_for_function("async () => (await navigator.clipboard.readText()).includes('ended: 1006')")
    copied = alice.page.evaluate("navigator.clipboard.readText()")
    assert "asked: 200 application/json" in copied
    assert "token-alice" not in copied
    still(alice)
    counts(alice.page.locator("textarea"), 1)
