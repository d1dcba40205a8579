"""The page in Firefox and in WebKitGTK: what engines do differently, and what a person does all day."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.page.test_page_proxies import LOCATIONS, PASS
from tests.page.test_page_reading import DRAWN, GAP, LOOK_AWAY
from tests.page.test_page_tabs import WATCH_CALLS
from tests.support.browser import PAGE
from tests.support.process import ServerProcess
from tests.support.proxies import plain_nginx
from tests.support.webdriver import ENTER, SHIFT, TAB, Engine, Window, firefox, webkit

FITS = (
    "document.documentElement.scrollWidth <= innerWidth && $('scroll').scrollWidth <= $('scroll').clientWidth"
)
CONFIRM = """event => { $('message').dispatchEvent(
    new KeyboardEvent('keydown', {bubbles: true, cancelable: true, key: 'Enter', ...event})); }"""
BACK = "dispatchEvent(new Event('online')) && state.phase === 'online'"
"""Asked again and again: the page lets a second pass between two tries."""

Open = Callable[..., Window]


@pytest.fixture(scope="module", params=[firefox, webkit])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    with request.param() as running:
        yield running


@pytest.fixture(scope="module")
def server(engine: Engine, pyz: Path) -> Iterator[ServerProcess]:
    with ServerProcess("--db", "none", "--rate", "0") as running:
        yield running


@pytest.fixture
def open_window(engine: Engine, server: ServerProcess) -> Iterator[Open]:
    """Open the page in one more window; all are closed, and found without problems, at the end."""
    with ExitStack() as stack:

        def open_page(url: str = f"{server.url}/") -> Window:
            window = Window(engine, url)
            stack.callback(window.close)
            return window

        yield open_page


def say_many(window: Window, count: int) -> None:
    more = "and so on " * 12
    window.do(f"for (let n = 0; n < {count}; n++) sendMessage(`message ${{n}} {more}`)")
    window.until("state.outbox.size === 0")


def test_two_talk_by_the_keyboard_alone(open_window: Open) -> None:
    alice, bob = open_window(), open_window()
    assert alice.run("getComputedStyle($('old')).display") == "none", "it is not too old"
    for field, text in (("username", "alice"), ("token", "token-alice")):
        alice.until("id => document.activeElement.id === id", field)
        alice.press(*text, TAB)
    alice.press(ENTER)
    alice.says("Connected to #general as alice.")
    bob.connect("bob", "general")
    alice.press(*"hello", ENTER)
    bob.shows("hello")
    bob.press(*"> hello")
    bob.press(ENTER, holding=SHIFT)
    bob.press(*"*good* morning", ENTER)
    for each in (alice, bob):
        each.shows("hello", "hello\ngood morning")
        each.until("[...$('members').children].map(node => node.innerText).join().startsWith('alice')")


def test_a_draft_is_its_rooms_and_a_tab_comes_back_to_what_it_was(open_window: Open) -> None:
    alice, bob = open_window().connect("alice", "draft-one"), open_window().connect("bob", "elsewhere")
    alice.press(*"for one")
    alice.switch("draft-two")
    assert alice.run("$('message').value") == ""
    alice.press(*"for two")
    for each in (alice, bob):
        each.reload()
    alice.says("Connected to #draft-two as alice.")
    assert alice.run("$('message').value") == "for two"
    bob.says("Connected to #elsewhere as bob.")
    alice.switch("draft-one")
    assert alice.run("$('message').value") == "for one"


def test_it_comes_back_when_its_server_does(open_window: Open, tmp_path: Path) -> None:
    database = ("--db", str(tmp_path / "chat.db"))
    with ServerProcess(*database) as first:
        alice = open_window(f"{first.url}/").connect("alice", "general")
        alice.say("before")
        alice.shows("before")
        first.close()
    alice.until("/^No connection|^Connecting/.test($('status').textContent)")
    alice.say("meanwhile")
    alice.until("$('outbox').childElementCount === 1")
    with ServerProcess(*database, "--port", str(first.port)):
        alice.until(BACK)
        alice.shows("before", "meanwhile")
        alice.do(
            "const status = $('status'); window.told = [];"
            "new MutationObserver(() => told.push(status.textContent))"
            ".observe(status, {childList: true, characterData: true, subtree: true});"
            "dispatchEvent(new Event('offline'))"
        )
        alice.until("told.some((text) => text.includes('No connection'))")
        alice.until(BACK)
        alice.shows("before", "meanwhile")


def test_who_is_called_is_told_once(open_window: Open) -> None:
    alice, twin = (open_window().connect("alice", "calls") for _ in range(2))
    bob = open_window().connect("bob", "calls")
    for each in (alice, twin):
        each.do(f"({WATCH_CALLS})(); {LOOK_AWAY}")
    alice.until(
        """(() => {
            navigator.locks.query().then(({held}) => { window.looks = held.filter(
                ({name}) => name.includes(' look ') && name.includes('alice')).length; });
            return window.looks === 0;
        })()"""
    )
    bob.say("@alice are you there?")
    for each in (alice, twin):
        each.until("document.title === '(1) #calls · chatroom'")
        assert each.run("document.querySelector('.called .call').textContent") == "@alice"
        # The locks are asked for in the order of the calls: an own one tells that they are through.
        each.do(
            "(async () => { for (let n = 0; n < 5; n++) await navigator.locks.query(); told.all = 1; })()"
        )
        each.until("told.all")
    assert alice.run("told.length") + twin.run("told.length") == 1


def test_a_reader_keeps_the_place(open_window: Open) -> None:
    say_many(open_window().connect("bob", "place"), 200)
    alice = open_window().connect("alice", "place")
    alice.until(f"{DRAWN} && {GAP} < 2")
    alice.do(
        "$('scroll').scrollTop = 150; window.row = view.nodes.get(state.room.log[0]);"
        "window.before = row.getBoundingClientRect().top"
    )
    alice.until("state.room.log.length >= 150")
    alice.until(f"{DRAWN} && Math.abs(row.getBoundingClientRect().top - before) < 3")
    alice.do("window.row = document.elementFromPoint(600, 350).closest('.message')")
    for width in (800, 560, 1100):
        alice.resize(width, 700)
        alice.until("row.getBoundingClientRect().bottom > 0 && row.getBoundingClientRect().top < 700")
    assert alice.run("state.following") is False


def test_a_narrow_window_has_room_for_the_talk(open_window: Open) -> None:
    alice = open_window().connect("alice", "wide")
    alice.switch("narrow")
    alice.say("w" * 300)
    alice.resize(460, 667)  # MiniBrowser gets no narrower
    alice.until(FITS)
    assert alice.run("$('scroll').clientHeight / innerHeight") >= 0.8
    alice.do("$('rail-open').focus()")
    alice.press(ENTER)
    alice.until("getComputedStyle($('rail')).visibility === 'visible'")
    alice.do("$('rooms').querySelector('[name=wide]').focus()")
    alice.press(ENTER)
    alice.says("Connected to #wide as alice.")
    assert alice.run("getComputedStyle($('rail')).visibility") == "hidden"
    alice.do("document.documentElement.style.fontSize = '200%'")
    alice.until(FITS)


def test_what_is_written_is_shown_as_it_is_meant(open_window: Open) -> None:
    alice = open_window().connect("alice", "texts")
    for text in ("مرحبا", "see https://example.org/a_(b)”, `x`", "ok"):
        alice.say(text)
    alice.shows("مرحبا", "see https://example.org/a_(b)”, x", "ok")
    directions = "[...$('rows').querySelectorAll('.text')].map(node => getComputedStyle(node).direction)"
    assert alice.run(directions) == ["rtl", "ltr", "ltr"]
    assert alice.run("document.querySelector('.text a').href") == "https://example.org/a_(b)"
    alice.do("$('message').focus()")
    low = alice.run("$('message').clientHeight")
    for _ in range(3):
        alice.press(ENTER, holding=SHIFT)
    alice.until("low => $('message').clientHeight > 2 * low", low)
    alice.fill("message", "に")
    for confirms in ({"isComposing": True}, {"keyCode": 229}):  # WebKit ends the composition before its Enter
        alice.run(CONFIRM, confirms)
    assert alice.run("[state.outbox.size, $('message').value]") == [0, "に"]
    alice.press(ENTER)
    alice.shows("مرحبا", "see https://example.org/a_(b)”, x", "ok", "に")


def test_at_other_addresses(open_window: Open, server: ServerProcess, tmp_path: Path) -> None:
    users = tmp_path / "users"
    users.touch()
    os.chmod(tmp_path, 0o755)
    with plain_nginx(tmp_path, LOCATIONS, server=server.port, users=users, passing=PASS) as proxy:
        front = f"http://127.0.0.1:{proxy.port}"
        alice = open_window(f"{front}/chat/").connect("alice", "addresses")
        bob = open_window(f"{front}/login")
        bob.do("document.cookie = 'session=valid; path=/'")
        bob.goto(f"{front}/cookie/")
        bob.connect("bob", "addresses")
        carol = open_window(PAGE.as_uri())
        carol.fill("server", f"ws://127.0.0.1:{server.port}")
        carol.connect("carol", "addresses")
        carol.say("from a file")
        for each in (alice, bob, carol):
            each.shows("from a file")
        for each in (alice, bob):
            each.do("leave()")  # before the proxy goes
