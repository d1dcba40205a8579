"""The page in a real browser, against the real server: what people see and what they never see."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from chatroom.pure.csp import policy
from tests.support.browser import PAGE, Visitor, chromium, counts, shows
from tests.support.process import ServerProcess

if TYPE_CHECKING:
    from playwright.sync_api import Browser

REFUSED = "console: Failed to load resource"
HOSTILE_TEXTS = (
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>",
    "<b>bold</b> &amp; <a href=javascript:alert(1)>x</a>",
    "{username} ${1} \\u003cimg\\u003e",
    "\u202egnp.exe",
)
HOSTILE_NAMES = ("<img/src=x/onerror=alert(1)>", "<script>alert(1)</script>", "{username}", "__proto__")
Visit = Callable[..., Visitor]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def server(browser: Browser) -> Iterator[ServerProcess]:
    with ServerProcess("--db", "none", "--rate", "0") as running:
        yield running


@pytest.fixture
def visit(browser: Browser, server: ServerProcess) -> Iterator[Visit]:
    """Open the page as one more visitor; all are closed, and found without problems, at the end."""
    with ExitStack() as stack:

        def open_page(at: ServerProcess = server, **options: Any) -> Visitor:
            visitor = Visitor(browser, at.url, **options)
            stack.callback(visitor.close)
            return visitor

        yield open_page


def says(visitor: Visitor, text: str | re.Pattern[str]) -> None:
    """Wait until the status contains `text`."""
    visitor.status.filter(has_text=text).wait_for()


def members(visitor: Visitor, *names: str) -> None:
    """Wait until exactly these are listed."""
    shows(visitor.members, *names)


# Talking


@pytest.mark.parametrize("from_file", [False, True], ids=["served", "file"])
def test_two_people_talk(visit: Visit, from_file: bool) -> None:
    room = f"talk-{from_file}"
    alice = visit(from_file=from_file).connect("alice", room)
    bob = visit().connect("bob", room)
    alice.say("hello, bob")
    bob.text("hello, bob").wait_for()
    bob.say("hello,\n  alice")
    alice.log.locator(".text", has_text="alice").wait_for()
    assert alice.log.locator(".text").all_text_contents() == ["hello, bob", "hello,\n  alice"]
    assert alice.log.locator(".who").all_text_contents() == ["alice", "bob"]
    assert alice.log.locator(".pending").count() == 0


def test_enter_sends_and_shift_enter_does_not(visit: Visit) -> None:
    alice = visit().connect("alice", "keys")
    alice.field("Message").press_sequentially("one")
    alice.field("Message").press("Shift+Enter")
    alice.field("Message").press_sequentially("two")
    alice.field("Message").press("Enter")
    alice.log.locator(".message.sent").wait_for()
    assert alice.log.locator(".text").all_text_contents() == ["one\ntwo"]
    assert alice.field("Message").input_value() == ""


def test_the_token_is_in_no_address(visit: Visit) -> None:
    alice = visit().connect("alice", "secret")
    assert [url for url in alice.requests if "token" in url] == []
    assert any(url.startswith("ws") for url in alice.requests)


def test_hostile_texts_stay_text(visit: Visit) -> None:
    alice = visit().connect("alice", "hostile")
    bob = visit().connect("bob", "hostile")
    for text in HOSTILE_TEXTS:
        alice.say(text)
    for visitor in (alice, bob):
        counts(visitor.log.locator(".sent"), len(HOSTILE_TEXTS))
        assert visitor.log.locator(".text").all_text_contents() == list(HOSTILE_TEXTS)
        assert visitor.log.locator("img, script, a, b").count() == 0


def test_hostile_names_stay_text(visit: Visit) -> None:
    alice = visit().connect("alice", "<b>names</b>")
    villain = visit()
    for name in HOSTILE_NAMES:
        villain.connect(name, "<b>names</b>")
        members(alice, name, "alice (you)")
        villain.say("hello")
        alice.log.locator(".who", has_text=name).wait_for()
        villain.press("Leave")
        alice.log.get_by_text(f"{name} left", exact=True).wait_for()
    assert alice.log.locator(".who").all_text_contents() == list(HOSTILE_NAMES)
    assert alice.page.locator("img, script:not(body > script), b").count() == 0


def test_joins_leaves_and_members_are_shown(visit: Visit) -> None:
    alice = visit().connect("alice", "people")
    members(alice, "alice (you)")
    bob = visit().connect("bob", "people")
    members(bob, "alice", "bob (you)")
    members(alice, "alice (you)", "bob")
    bob.press("Leave")
    says(bob, "You have left.")
    members(alice, "alice (you)")
    assert alice.log.locator(".note").all_text_contents() == ["bob joined", "bob left"]
    bob.press("Connect")
    members(alice, "alice (you)", "bob")


def test_rooms_are_switched(visit: Visit) -> None:
    alice = visit().connect("alice", "east")
    bob = visit().connect("bob", "west")
    bob.say("in the west")
    bob.log.locator(".sent").wait_for()
    alice.say("in the east")
    alice.log.locator(".sent").wait_for()
    alice.switch("west")
    says(alice, "Connected to #west as alice.")
    alice.text("in the west").wait_for()
    members(alice, "alice (you)", "bob")
    assert alice.log.locator(".text").all_text_contents() == ["in the west"]
    alice.say("west too")
    bob.text("west too").wait_for()


def test_a_room_that_can_not_be_entered_is_said(visit: Visit) -> None:
    alice = visit().connect("alice", "east")
    alice.switch("x" * 65)
    says(alice, "You can't enter")
    alice.say("still here")
    alice.text("still here").wait_for()


def test_typing_comes_and_goes(visit: Visit) -> None:
    alice = visit().connect("alice", "typing")
    bob = visit().connect("bob", "typing")
    bob.field("Message").press_sequentially("hi")
    mark = alice.page.get_by_text("bob is typing…")
    mark.wait_for()
    bob.field("Message").press("Enter")
    mark.wait_for(state="detached")
    bob.page.wait_for_timeout(3_000)  # the pace of the protocol: one mark in 3 s
    bob.field("Message").press_sequentially("hm")
    mark.wait_for()
    bob.field("Message").fill("")
    mark.wait_for(state="detached")


# History


def test_history_is_there_after_a_reload_and_older_can_be_loaded(visit: Visit) -> None:
    alice = visit().connect("alice", "history")
    alice.page.evaluate("for (let number = 0; number < 120; number++) sendMessage(`message ${number}`)")
    counts(alice.log.locator(".sent"), 120)
    alice.page.reload()
    alice.connect("alice", "history")
    alice.text("message 119").wait_for()
    shown = alice.log.locator(".text")
    counts(shown, 50)
    for expected in (100, 120):
        alice.press("Load older")
        counts(shown, expected)
    assert shown.all_text_contents() == [f"message {number}" for number in range(120)]
    alice.page.get_by_role("button", name="Load older").wait_for(state="hidden")


def test_a_lost_connection_resumes_where_it_was(visit: Visit) -> None:
    alice = visit().connect("alice", "resume")
    bob = visit().connect("bob", "resume")
    alice.say("before")
    bob.text("before").wait_for()
    bob.page.evaluate("state.socket.close(4000)")
    alice.say("meanwhile")
    bob.text("meanwhile").wait_for()
    bob.say("after")
    alice.text("after").wait_for()
    for visitor in (alice, bob):
        assert visitor.log.locator(".text").all_text_contents() == ["before", "meanwhile", "after"]
    assert any("since=1" in url and "epoch=" in url for url in bob.requests)


def test_what_was_sent_while_the_server_was_away_goes_out_once(visit: Visit) -> None:
    with ServerProcess("--db", "none") as first:
        alice = visit(first).connect("alice")
        alice.say("one")
        alice.log.locator(".sent").wait_for()
        assert first.stop() == 0
    says(alice, re.compile("Connecting again|can't be reached"))  # either stands only until the next try
    alice.say("two")
    alice.log.locator(".pending").wait_for()
    says(alice, "can't be reached")
    with ServerProcess("--db", "none", "--port", str(first.port)) as second:
        bob = visit(second).connect("bob")
        says(alice, "Connected to #general as alice.")
        bob.text("two").wait_for()
        alice.log.locator(".sent").wait_for()
        alice.log.get_by_text("The history of this room was replaced.").wait_for()
        assert alice.log.locator(".text").all_text_contents() == ["two"]
        assert bob.log.locator(".text").all_text_contents() == ["two"]
        alice.forgive("console: ")
        for visitor in (alice, bob):
            visitor.press("Leave")


def test_a_refused_message_is_marked_and_can_be_tried_again(visit: Visit) -> None:
    alice = visit().connect("alice", "refused")
    alice.say("x" * 4001)
    alice.log.get_by_text("not sent").wait_for()
    alice.press("Try again")
    alice.log.get_by_text("not sent").wait_for()
    alice.say("short")
    alice.log.locator(".sent").wait_for()


# Refusals in words


def test_a_wrong_token_is_said_and_the_form_stays_usable(visit: Visit) -> None:
    alice = visit()
    alice.enter("alice", token="wrong")
    says(alice, "This token is not valid.")
    asked = len(alice.requests)
    alice.connect("alice")
    assert asked == 2, "the page, and one question: a refused token is not tried again"
    alice.forgive(REFUSED)


def test_what_is_wrong_with_the_form_is_said(visit: Visit) -> None:
    alice = visit()
    for username, token, words in (
        ("alice", "", "Enter a token."),
        ("alice", "two words", "This token is not valid: it contains characters that no token has."),
        ("alice", "tøken", "This token is not valid: it contains characters that no token has."),
        ("x" * 33, "token-alice", "This name can't be used: username must have"),
        ("two words", "token-alice", "This name can't be used: username"),
    ):
        alice.enter(username, token=token)
        says(alice, words)
    alice.forgive(REFUSED)


def test_a_full_server_is_said_and_asked_again(visit: Visit) -> None:
    with ServerProcess("--db", "none", "--max-connections", "1") as small:
        alice = visit(small).connect("alice")
        bob = visit(small)
        bob.enter("bob")
        says(bob, "The server lets nobody in at the moment: ")
        alice.press("Leave")
        says(bob, "Connected to #general as bob.")
        bob.forgive("console: ")


def test_an_origin_that_is_not_let_in_is_said(visit: Visit) -> None:
    with ServerProcess("--db", "none", "--origin", "https://chat.example") as strict:
        alice = visit(strict).connect("alice")
        bob = visit(strict, from_file=True)
        bob.enter("bob")
        says(bob, "Origin not allowed")
        bob.forgive(REFUSED)
        alice.press("Leave")  # before its server goes: it would try to come back


def test_rights_are_said(visit: Visit, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.toml"
    tokens.write_text(
        '[[token]]\ntoken = "s3cret"\nusername = "alice"\nrooms = { general = "rw", news = "r" }\n', "utf-8"
    )
    with ServerProcess("--db", "none", "--tokens", str(tokens)) as guarded:
        alice = visit(guarded)
        alice.enter("bob", token="s3cret")
        says(alice, "You are not let in: ")
        alice.enter("", token="s3cret")
        says(alice, "Connected to #general as alice.")
        alice.switch("vault")
        says(alice, "You can't enter #vault: ")
        alice.switch("news")
        says(alice, "Connected to #news as alice.")
        alice.say("hello")
        alice.log.get_by_text("not sent: ").wait_for()
        alice.forgive(REFUSED)
        alice.press("Leave")


def test_a_handshake_that_would_be_let_in_and_yet_fails_is_said(visit: Visit) -> None:
    alice = visit()
    alice.page.route_web_socket("**/*", lambda socket: socket.close())
    alice.enter("alice")
    says(alice, "lets you in, but the connection fails. Trying again")


def test_a_server_that_is_not_there_is_said(visit: Visit) -> None:
    alice = visit(from_file=True)
    for address, words in (
        ("ws://127.0.0.1:1", "The server at ws://127.0.0.1:1/ can't be reached."),
        ("nonsense", "This is not the address of a server."),
        ("ftp://localhost", "This is not the address of a server."),
    ):
        alice.field("Server").fill(address)
        alice.field("Token").fill("token-alice")
        alice.press("Connect")
        says(alice, words)
    alice.forgive(REFUSED, "request to http://127.0.0.1:1/handshake")


# The policy


def test_the_page_is_served_with_the_strict_policy(visit: Visit) -> None:
    answer = visit().page.request.get(visit().address)
    assert answer.body() == PAGE.read_bytes()
    assert answer.headers["content-security-policy"] == policy(PAGE.read_bytes())


@pytest.mark.parametrize("from_file", [False, True], ids=["served", "file"])
def test_an_injected_script_would_not_run(visit: Visit, from_file: bool) -> None:
    alice = visit(from_file=from_file)
    for attempt in (
        "document.body.innerHTML = '<img src=x onerror=\"window.broken = 1\">'",
        "document.body.append(make('script', '', 'window.broken = 1'))",
        "document.body.setAttribute('onclick', 'window.broken = 1'); document.body.click()",
        "document.body.append(make('style', '', 'body { color: red }'))",
    ):
        alice.page.evaluate(f"() => {{ try {{ {attempt} }} catch {{ }} }}")
    alice.page.wait_for_timeout(100)
    assert alice.page.evaluate("window.broken") is None
    assert alice.page.evaluate("getComputedStyle(document.body).color") != "rgb(255, 0, 0)"
    alice.forgive("console: violation of", "console: ")


# Every event, and the pure parts, in the page itself


def test_odd_and_unknown_events_are_ignored(visit: Visit) -> None:
    alice = visit().connect("alice", "events")
    for text in ("", "null", "[]", "3", '"message"', "{}", '{"event":7}'):
        alice.page.evaluate("text => receive(text)", text)
    for name in ("constructor", "__proto__", "future"):
        alice.page.evaluate("event => receive(JSON.stringify({event}))", name)
    alice.say("fine")
    alice.text("fine").wait_for()


def test_rare_events_are_shown(visit: Visit) -> None:
    alice = visit().connect("alice", "rare")

    def hear(**frame: Any) -> None:
        alice.page.evaluate("frame => receive(JSON.stringify(frame))", frame)

    hear(event="members", data={"members": ["alice", "zoe"]}, room="rare")
    members(alice, "alice (you)", "zoe")
    hear(event="message", data={"username": "zoe", "text": "late"}, room="rare", id=3, ts=1)
    hear(event="message", data={"username": "zoe", "text": "late"}, room="rare", id=3, ts=1)
    alice.log.get_by_text("Something is missing here.").wait_for()
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
    alice.page.evaluate("lost(4503, 'No longer allowed')")
    says(alice, "The server has closed the connection: No longer allowed.")
    alice.field("Token").wait_for()
    assert alice.page.evaluate("state.phase") == "idle"
    assert len(alice.requests) == sockets


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("readServer('ws://localhost:3000')", "ws://localhost:3000/"),
        ("readServer(' https://chat.example/x?y#z ')", "wss://chat.example/x/"),
        ("readServer('localhost:3000')", None),
        ("query({username: 'a b+ü', room: '', since: 0})", "username=a%20b%2B%C3%BC&since=0"),
        ("query({room: '\\ud800x'})", "room=%EF%BF%BDx"),
        ("backoff(0, 1)", 1_000),
        ("backoff(40, 1)", 20_000),
        ("backoff(3, 0)", 0),
        ("retryAfter('7', 0)", 7),
        ("retryAfter('Thu, 01 Jan 1970 00:00:09 GMT', 1000)", 8),
        ("retryAfter('soon', 0)", 0),
        ("retryAfter(null, 0)", 0),
        ("isToken('a.B-9_~')", True),
        ("isToken('a,b')", False),
    ],
)
def test_pure_parts(pure: Visitor, expression: str, value: object) -> None:
    assert pure.page.evaluate(expression) == value


@pytest.fixture(scope="module")
def pure(browser: Browser, server: ServerProcess) -> Iterator[Visitor]:
    visitor = Visitor(browser, server.url)
    yield visitor
    visitor.close()


def test_a_cid_is_a_uuid_also_where_random_uuid_is_missing(pure: Visitor) -> None:
    assert pure.page.evaluate(
        """() => {
            const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;
            const native = newCid();
            Object.defineProperty(crypto, 'randomUUID', {value: undefined});
            const own = newCid();
            return [native, own].every(cid => uuid.test(cid)) && native !== own;
        }"""
    )


# Looks


def test_nothing_is_cut_off(visit: Visit) -> None:
    root = "document.documentElement"
    fits = f"{root}.scrollWidth <= innerWidth && {root}.scrollHeight <= innerHeight"
    alice = visit()
    for width in (320, 375, 1920):
        alice.page.set_viewport_size({"width": width, "height": 640})
        assert alice.page.evaluate(fits)
    alice.connect("alice", "looks")
    alice.say("w" * 500)
    alice.log.locator(".sent").wait_for()
    for width in (320, 375, 1920):
        alice.page.set_viewport_size({"width": width, "height": 640})
        assert alice.page.evaluate(fits)
        assert alice.page.evaluate("$('scroll').scrollWidth <= $('scroll').clientWidth")


def test_the_end_stays_in_view_and_a_reader_of_the_past_is_left_there(visit: Visit) -> None:
    alice = visit(viewport={"width": 800, "height": 500}).connect("alice", "scroll")
    alice.page.evaluate("for (let number = 0; number < 40; number++) sendMessage(`message ${number}`)")
    counts(alice.log.locator(".sent"), 40)
    gap = "(box => box.scrollHeight - box.scrollTop - box.clientHeight)($('scroll'))"
    assert alice.page.evaluate(gap) < 2
    alice.page.set_viewport_size({"width": 400, "height": 400})
    alice.page.wait_for_timeout(100)
    assert alice.page.evaluate(gap) < 2
    alice.page.evaluate("$('scroll').scrollTop = 50")
    bob = visit().connect("bob", "scroll")
    bob.say("hello")
    alice.text("hello").wait_for()
    assert alice.page.evaluate("$('scroll').scrollTop") == 50


def test_dark_and_light_follow_the_system(visit: Visit) -> None:
    alice = visit(color_scheme="light")
    colour = "getComputedStyle(document.body).backgroundColor"
    light = alice.page.evaluate(colour)
    alice.page.emulate_media(color_scheme="dark")
    assert alice.page.evaluate(colour) != light
