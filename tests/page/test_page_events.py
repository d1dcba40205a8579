"""Every event that the page can hear, in the page itself."""

from __future__ import annotations

from typing import Any

from tests.support.browser import Visit, members, says, still, stop_clock


def test_odd_and_unknown_events_are_ignored(visit: Visit) -> None:
    alice = visit().connect("alice", "events")
    for text in ("", "null", "[]", "3", '"message"', "{}", '{"event":7}'):
        alice.page.evaluate("text => receive(text)", text)
    for name in ("constructor", "__proto__", "future"):
        alice.page.evaluate("event => receive(JSON.stringify({event}))", name)
    alice.say("fine")
    alice.log.locator(".sent", has_text="fine").wait_for()
    alice.forgive(
        "console: SyntaxError", "console: TypeError"
    )  # told to whoever looks there, and to nobody else


def test_rare_events_are_shown(visit: Visit) -> None:
    alice = visit().connect("alice", "rare")

    def hear(**frame: Any) -> None:
        alice.page.evaluate("frame => receive(JSON.stringify(frame))", frame)

    hear(event="members", data={"members": ["alice", "zoe"]}, room="rare")
    members(alice, "alice (you)", "zoe")
    hear(event="message", data={"username": "zoe", "text": "late"}, room="rare", id=3, ts=1)
    hear(event="message", data={"username": "zoe", "text": "late"}, room="rare", id=3, ts=1)
    alice.log.get_by_text("Something is missing here.").wait_for()
    still(alice)
    assert alice.text("late").count() == 1
    hear(event="error", data={"message": "Invalid JSON"}, code="bad_json")
    says(alice, "The server says: Invalid JSON")
    hear(event="expiring", data={"in": 60})
    says(alice, "Your token expires in 60 s.")
    alice.field("Token").fill("token-bob")
    alice.press("Connect")
    says(alice, "Your token has been renewed.")
    alice.field("Token").wait_for(state="hidden")


def test_an_unavailable_store_is_asked_again_with_the_same_cid(visit: Visit) -> None:
    alice = visit().connect("alice", "retry")
    alice.page.evaluate("transmitted = transmit, transmit = (...all) => { window.kept = all }")
    alice.say("again")
    alice.page.wait_for_function("() => window.kept")
    alice.page.evaluate(
        """() => {
            transmit = transmitted;
            const error = {event: 'error', data: {message: 'Try later'}, code: 'unavailable', retry: true};
            receive(JSON.stringify({...error, cid: window.kept[2]}));
        }"""
    )
    alice.log.locator(".sent").wait_for()
    assert alice.text("again").count() == 1


def test_a_dismissal_is_final(visit: Visit) -> None:
    alice = visit().connect("alice", "dismissed")
    sockets = len(alice.requests)
    stop_clock(alice)
    alice.page.evaluate("lost(4503, 'No longer allowed')")
    says(alice, "The server has closed the connection: No longer allowed.")
    alice.field("Token").wait_for()
    alice.page.clock.run_for(120_000)
    assert alice.page.evaluate("state.phase") == "idle"
    assert len(alice.requests) == sockets
