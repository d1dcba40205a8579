"""What people and scripts hold on to: a label, the focus, the place of a row, what was read out."""

from __future__ import annotations

from tests.support.browser import Visit, counts, says


def test_a_label_leads_to_one_field(visit: Visit) -> None:
    """Whoever looks for "Room", by voice or by a script, finds nothing else that is called so in part."""
    alice = visit(from_file=True).connect("alice", "labels")
    for label in ("Server", "Username", "Token", "Room", "Message", "Members"):
        counts(alice.page.get_by_label(label), 1)


def test_the_focus_stays_where_it_is_of_use(visit: Visit) -> None:
    alice = visit()

    def at(name: str) -> bool:
        return bool(alice.page.evaluate("name => document.activeElement.id === name", name))

    alice.enter("x" * 33)
    says(alice, "This name can't be used")
    assert at("connect")
    alice.connect("alice", "focus")
    assert at("message")
    alice.page.evaluate("transmit = () => 0")
    alice.say("refused")
    alice.page.evaluate("refuse(state.outbox.values().next().value, 'too long', {}), render()")
    for name in ("Try again", "Discard"):
        alice.page.evaluate("for (const entry of waiting()) refuse(entry, 'too long', {}); render()")
        alice.press(name)
        assert at("message")
    counts(alice.log.locator(".message"), 0)
    alice.page.evaluate("lost(4001, '')")
    alice.field("Token").fill("wrong")
    alice.field("Token").press("Enter")
    says(alice, "This token is not valid.")
    assert at("token")
    alice.press("Leave")
    assert at("connect")
    alice.forgive("console: Failed to load resource")


def test_what_is_sent_takes_its_place_at_once_and_moves_nothing(visit: Visit) -> None:
    alice = visit().connect("alice", "places")
    alice.page.evaluate("window.meant = transmit, transmit = () => 0")
    for text in ("one", "two", "three"):
        alice.say(text)
    counts(alice.log.locator(".pending"), 3)
    assert alice.log.locator(".head .text").all_text_contents() == ["one"]
    heights = "[...document.querySelectorAll('.message:not(.head)')].map(row => row.offsetHeight)"
    before = alice.page.evaluate(heights)
    alice.page.evaluate("transmit = meant; for (const entry of waiting()) retry(entry)")
    alice.page.evaluate("for (const entry of waiting()) { entry.socket = null; } flush()")
    counts(alice.log.locator(".sent"), 3)
    assert alice.page.evaluate(heights) == before
    assert alice.log.locator(".head .text").all_text_contents() == ["one"]


def test_marks_that_are_piled_up_stay_with_their_message(visit: Visit) -> None:
    alice = visit().connect("alice", "piles")
    alice.say("a" + "\u0301" * 300)
    alice.log.locator(".sent").wait_for()
    assert alice.log.locator(".message").evaluate("row => getComputedStyle(row).overflow") == "clip"


def test_what_was_read_out_is_not_read_again_when_its_mark_goes(visit: Visit) -> None:
    alice = visit().connect("alice", "marks")
    bob = visit().connect("bob", "marks")
    alice.page.evaluate("document.hasFocus = () => false; window.dispatchEvent(new Event('blur'))")
    bob.say("unread")
    alice.log.locator(".fresh").wait_for()
    alice.page.evaluate(
        """() => {
            window.added = [];
            new MutationObserver(records => added.push(...records.flatMap(
                ({addedNodes}) => [...addedNodes].map(node => node.textContent)))).observe(
                $('rows'), {subtree: true, childList: true});
        }"""
    )
    alice.say("seen")
    counts(alice.log.locator(".fresh"), 0)
    alice.log.locator(".sent", has_text="seen").wait_for()
    assert not any("unread" in text for text in alice.page.evaluate("added"))


def test_a_refusal_of_a_message_is_said_aloud(visit: Visit) -> None:
    alice = visit().connect("alice", "aloud")
    alice.page.evaluate("state.limits = {}")  # a server that tells none
    alice.say("x" * 4001)
    alice.log.get_by_role("alert").filter(has_text="not sent: ").wait_for()
