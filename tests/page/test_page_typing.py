"""What is typed: candidates, commands, completions, what is too long, what can't be seen, and on phones."""

from __future__ import annotations

import pytest

from tests.page.test_page_reading import hear
from tests.support.browser import Visit, Visitor, counts, says, still

PHONE = {"viewport": {"width": 375, "height": 667}, "has_touch": True, "is_mobile": True}


def typing(visitor: Visitor) -> str:
    return visitor.field("Message").input_value()


def press(visitor: Visitor, **event: object) -> None:
    """A key as a browser reports it, whatever keyboard this machine has."""
    visitor.page.evaluate(
        """event => $('message').dispatchEvent(
            new KeyboardEvent('keydown', {bubbles: true, cancelable: true, ...event}))""",
        event,
    )


@pytest.mark.parametrize(
    "confirms",
    [{"isComposing": True}, {"keyCode": 229}],
    ids=["before the composition ends", "after it, as in WebKit"],
)
def test_the_enter_that_confirms_a_candidate_sends_nothing(visit: Visit, confirms: dict[str, object]) -> None:
    alice = visit().connect("alice", f"candidates-{len(confirms)}-{'keyCode' in confirms}")
    alice.field("Message").fill("にほんご")
    press(alice, key="Enter", **confirms)
    still(alice)
    assert typing(alice) == "にほんご"
    assert alice.page.evaluate("state.outbox.size + state.room.log.length") == 0
    press(alice, key="Enter", keyCode=13)
    alice.text("にほんご").wait_for()


def test_a_text_that_is_too_long_stays_in_the_field(visit: Visit) -> None:
    alice = visit().connect("alice", "long")
    alice.page.evaluate("state.limits = {text: 100, frame: 65536}")
    alice.field("Message").fill("😀" * 101)
    alice.page.get_by_text("Too long by 1 of 100 characters.").wait_for()
    alice.press("Send")
    still(alice)
    assert typing(alice) == "😀" * 101
    assert alice.page.evaluate("state.outbox.size") == 0
    alice.field("Message").fill("😀" * 97)
    alice.page.get_by_text("Characters left: 3.").wait_for()
    alice.press("Send")
    alice.log.locator(".sent").wait_for()
    alice.page.evaluate("state.limits = {text: 10 ** 6, frame: 1000}")
    alice.field("Message").fill("ü" * 600)
    alice.page.get_by_text("Too long for this server.").wait_for()


def test_what_a_server_that_tells_no_limit_refuses_can_be_edited(visit: Visit) -> None:
    alice = visit().connect("alice", "refused")
    alice.page.evaluate("state.limits = {}")
    alice.say("x" * 4001)
    alice.log.get_by_text("not sent").wait_for()
    alice.field("Message").fill("and more")
    alice.press("Edit")
    assert typing(alice) == "x" * 4001 + "\nand more"
    counts(alice.log.locator(".failed"), 0)
    alice.field("Message").fill("short")
    alice.press("Send")
    alice.log.locator(".sent", has_text="short").wait_for()


@pytest.mark.parametrize(
    "text", ["\u200b", " \u2060\ufe0f ", "\u3164\u115f", "\u2800", "\u00ad\u202e", "\U000e0001"]
)
def test_what_can_not_be_seen_is_not_sent(visit: Visit, text: str) -> None:
    alice = visit().connect("alice", "invisible")
    alice.field("Message").fill(text)
    still(alice)
    assert alice.page.get_by_role("button", name="Send", exact=True).is_disabled()
    alice.field("Message").press("Enter")
    still(alice)
    assert alice.page.evaluate("state.outbox.size + state.room.log.length") == 0


def test_on_a_phone_enter_makes_a_line_and_no_keyboard_opens_by_itself(visit: Visit) -> None:
    alice = visit(**PHONE).connect("alice", "phone")
    assert alice.field("Message").get_attribute("enterkeyhint") == "enter"
    assert alice.page.evaluate("document.activeElement.id") != "message"
    alice.field("Message").press_sequentially("one")
    alice.field("Message").press("Enter")
    alice.field("Message").press_sequentially("two")
    assert typing(alice) == "one\ntwo"
    alice.press("Send")
    alice.log.locator(".sent").wait_for()
    assert visit().connect("bob", "phone").field("Message").get_attribute("enterkeyhint") == "send"


def test_tab_completes_names_and_emoji_or_moves_on(visit: Visit) -> None:
    alice = visit().connect("alice", "tab")
    hear(alice, {"event": "members", "data": {"members": ["alice", "Anna", "anton", "bob"]}})
    field = alice.field("Message")
    field.press_sequentially("hi @an")
    field.press("Tab")
    assert typing(alice) == "hi @Anna "
    field.press("Tab")
    assert typing(alice) == "hi @anton "
    field.press("Tab")
    assert typing(alice) == "hi @Anna "
    field.press_sequentially(":tad")
    field.press("Tab")
    assert typing(alice) == "hi @Anna 🎉"
    field.press_sequentially(" :+1:")
    assert typing(alice) == "hi @Anna 🎉 👍"
    for text in ("", "@", "word ", "plain", "@nobody"):
        field.fill(text)
        field.press("Tab")
        assert typing(alice) == text
        assert alice.page.evaluate("document.activeElement.id") != "message"


def test_commands_are_carried_out_and_unknown_ones_are_said_to_nobody(visit: Visit) -> None:
    alice = visit().connect("alice", "commands")
    alice.say("/help")
    alice.log.get_by_text("Commands: /me does something").wait_for()
    alice.say("/me waves")
    alice.log.locator(".me").wait_for()
    assert alice.log.locator(".me").inner_text() == "waves"
    alice.say("/nonsense now")
    alice.page.get_by_text("There is no command /nonsense.").wait_for()
    assert typing(alice) == "/nonsense now"
    alice.say("//nonsense now")
    alice.text("/nonsense now").wait_for()
    alice.say("/usr/bin is a path")
    alice.text("/usr/bin is a path").wait_for()
    alice.say("/switch commands-too")
    says(alice, "Connected to #commands-too as alice.")
    assert typing(alice) == ""


def test_what_is_stored_of_a_newer_kind_leaves_no_hole(visit: Visit) -> None:
    alice = visit().connect("alice", "newer")
    hear(alice, {"event": "message", "data": {"username": "bob", "text": "one"}, "id": 1, "ts": 1.7e12})
    hear(alice, {"event": "newer", "data": {}, "room": "newer", "id": 2, "ts": 1.7e12})
    hear(alice, {"event": "message", "data": {"username": "bob", "text": "on"}, "id": 3, "ts": 1.7e12})
    alice.text("on").wait_for()
    assert alice.log.get_by_text("Something is missing").count() == 0


def test_what_is_typed_anywhere_goes_to_the_field(visit: Visit) -> None:
    alice = visit().connect("alice", "anywhere")
    alice.page.evaluate("$('scroll').focus()")
    alice.page.keyboard.type("hello")
    assert typing(alice) == "hello"


def test_a_message_is_quoted_copied_and_linked(visit: Visit) -> None:
    alice = visit(permissions=["clipboard-read", "clipboard-write"]).connect("alice", "tools")
    bob = visit().connect("bob", "tools")
    bob.say("first\nsecond `code`")
    alice.log.locator(".sent").hover()
    for name, copied in (("Copy text", "first\nsecond `code`"), ("Copy link", f"{alice.server}/#tools@1")):
        alice.press(name)
        alice.page.wait_for_function(
            "async wanted => await navigator.clipboard.readText() === wanted", arg=copied
        )
    full = alice.page.locator("#tools time").text_content()
    assert full is not None
    assert "202" in full, "the year, too"
    alice.field("Message").fill("so")
    alice.log.locator(".sent").hover()
    alice.press("Reply")
    assert typing(alice) == "> first\n> second `code`\nso"
    alice.press("Send")
    quote = bob.log.locator(".quote").first
    quote.wait_for()
    assert quote.inner_text() == "first"
    assert bob.log.locator(".text").last.inner_text() == "first\nsecond code\nso", "no empty lines between"


def test_what_can_be_done_with_a_message_stands_at_that_message(visit: Visit) -> None:
    alice = visit().connect("alice", "beside")
    for text in ("one", "two", "three"):
        alice.say(text)
    counts(alice.log.locator(".sent"), 3)
    alice.text("two").hover()
    alice.page.locator("#tools").wait_for()
    tools, row = (alice.page.locator(at).bounding_box() for at in ("#tools", ".message:nth-child(2)"))
    assert tools is not None
    assert row is not None
    assert row["y"] <= tools["y"] + tools["height"] <= row["y"] + row["height"], "the pointer comes to it"
    assert tools["x"] + tools["width"] <= row["x"] + row["width"]


def test_a_tap_shows_the_time_and_what_can_be_done(visit: Visit) -> None:
    alice = visit(**PHONE).connect("alice", "tap")
    alice.say("tapped")
    alice.log.locator(".sent").wait_for()
    alice.text("tapped").tap()
    alice.page.locator("#tools time").wait_for()
    alice.text("tapped").tap()
    alice.page.locator("#tools").wait_for(state="hidden")


def test_messages_are_walked_through_by_the_keyboard(visit: Visit) -> None:
    alice = visit().connect("alice", "walked")
    for text in ("one", "two"):
        alice.say(text)
    counts(alice.log.locator(".sent"), 2)
    for row in ("two", "one"):
        alice.page.keyboard.press("Alt+ArrowUp")
        assert alice.page.evaluate("document.activeElement.querySelector('.text').textContent") == row
    alice.page.get_by_role("button", name="Reply", exact=True).wait_for()


def test_code_can_be_copied(visit: Visit) -> None:
    alice = visit(permissions=["clipboard-read", "clipboard-write"]).connect("alice", "code")
    alice.say("```sh\nmake all\n```")
    alice.log.locator("code.block").hover()
    alice.log.get_by_role("button", name="Copy text").click()
    alice.page.wait_for_function("async () => await navigator.clipboard.readText() === 'make all'")
