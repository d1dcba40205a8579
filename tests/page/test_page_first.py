"""The first look: what a newcomer is told, how little stands before the first word, and what ends where."""

from __future__ import annotations

import pytest

from tests.page.test_page_reading import hear
from tests.support.browser import Visit, counts, says, still
from tests.support.process import ServerProcess

PLACES = """[...document.querySelectorAll('#gate :is(h1, label, input, p, button)')]
    .filter(node => node.checkVisibility()).map(node => {
    const {x, y, width, height} = node.getBoundingClientRect();
    return {x, y, width, height, text: node.innerText};
})"""
HEIGHT = "id => document.getElementById(id).getBoundingClientRect().height"
PHONE = {"viewport": {"width": 375, "height": 667}, "has_touch": True, "is_mobile": True}


def test_the_first_empty_field_has_the_focus(visit: Visit) -> None:
    focus = "document.activeElement.id"
    alice = visit()
    assert alice.page.evaluate(focus) == "username"
    alice.connect("alice", "first")
    alice.press("Leave")
    alice.page.evaluate("tab.keep('token', '')")
    alice.page.reload()
    assert alice.page.evaluate(focus) == "token"


NOTE_START = """addEventListener('DOMContentLoaded', () => {
    new MutationObserver(() => { window.began ??= performance.now(); })
        .observe(document.getElementById('rest'), {attributeFilter: ['type']});
})"""
PAINTED = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"


@pytest.mark.parametrize(
    ("before", "place", "waits"),
    [
        ("window.setTimeout = () => 0", "", True),  # the page would start without a frame that takes long
        ("", "#attic", False),
        ("localStorage.setItem('chatroom.form', '{}')", "", False),
        ("Object.defineProperty(document, 'hidden', {get: () => true})", "", False),
    ],
    ids=["newcomer", "invited", "returning", "hidden"],
)
def test_a_newcomers_first_frame_does_not_wait_for_the_script(
    visit: Visit, before: str, place: str, waits: bool
) -> None:
    alice = visit()
    page = alice.context.new_page()
    page.add_init_script(f"{NOTE_START}; {before}")
    page.goto(alice.address + place)
    page.wait_for_function(f"() => window.began && {PAINTED}")
    assert page.evaluate(f"{PAINTED} < began") is waits


def test_the_page_starts_where_no_frame_is_told_of(visit: Visit) -> None:
    alice = visit()
    page = alice.context.new_page()
    page.add_init_script("PerformanceObserver.prototype.observe = () => {}")
    page.goto(alice.address)
    page.locator("body[data-phase=idle]").wait_for()


def test_nothing_moves_behind_the_first_frame(visit: Visit) -> None:
    alice = visit()
    page = alice.context.new_page()
    page.add_init_script(
        "PerformanceObserver.prototype.observe = () => {}; window.setTimeout = start => window.begin = start"
    )
    page.goto(alice.address)
    page.wait_for_function(f"() => {PAINTED}")
    assert page.evaluate("document.body.dataset.phase") is None
    first = page.evaluate(PLACES)
    assert first[-1]["text"] == "Connect"
    page.evaluate("begin()")
    page.locator("body[data-phase=idle]").wait_for()
    assert page.evaluate(PLACES) == first


def test_connect_works_before_the_script_has_run(visit: Visit) -> None:
    alice = visit()
    page = alice.context.new_page()
    page.add_init_script(
        "PerformanceObserver.prototype.observe = () => {};"
        "window.wait = setTimeout; window.setTimeout = () => { window.setTimeout = wait; }"
    )
    page.goto(alice.address)
    for label, text in (("Username", "alice"), ("Token", "token-alice"), ("Room", "early")):
        page.get_by_label(label, exact=True).fill(text)
    assert page.evaluate("document.body.dataset.phase") is None
    page.get_by_role("button", name="Connect", exact=True).click()
    page.get_by_text("Connected to #early as alice.").wait_for()


def test_a_newcomer_is_told_where_a_token_comes_from(
    visit: Visit, tmp_path_factory: pytest.TempPathFactory
) -> None:
    visit().page.get_by_text("This server takes the development tokens; one is dev-token.").wait_for()
    tokens = tmp_path_factory.mktemp("tokens") / "tokens.toml"
    tokens.write_text('[[token]]\ntoken = "a-token-of-its-own-0123456789"\n')
    with ServerProcess("--db", "none", "--tokens", str(tokens)) as guarded:
        visit(guarded).page.get_by_text("Whoever runs this server gives you a token.").wait_for()


@pytest.mark.parametrize(
    ("username", "token", "room", "field"),
    [
        ("alice", "", "r", "token"),
        ("alice", "wrong", "r", "token"),
        ("two words", "token-alice", "r", "username"),
        ("", "token-alice", "r", "username"),
        ("alice", "token-alice", "two words", "room"),
    ],
)
def test_an_error_stands_under_its_own_field(
    visit: Visit, username: str, token: str, room: str, field: str
) -> None:
    alice = visit()
    alice.enter(username, token=token, room=room)
    alice.page.locator(f"#{field}[aria-invalid=true]").wait_for()
    assert alice.page.evaluate("$('status').closest('.field')?.querySelector('input').id") == field
    assert alice.page.locator(f"#{field}").get_attribute("aria-describedby") == "status"
    assert alice.page.locator("[aria-invalid=true]").count() == 1
    alice.overlook("console: Failed to load resource")


def test_a_healthy_page_shows_no_status(visit: Visit) -> None:
    alice = visit()
    shown = "$('notice').getBoundingClientRect().height > 1"
    assert not alice.page.evaluate(shown)
    alice.connect("alice", "healthy")
    still(alice)
    assert alice.page.evaluate(HEIGHT, "gate") <= 1
    assert alice.page.evaluate(HEIGHT, "head") <= 53
    alice.page.evaluate("lost(4503, 'gone')")
    still(alice)
    assert alice.page.evaluate(HEIGHT, "gate") > 30


def test_the_head_names_the_room_and_its_members(visit: Visit) -> None:
    alice = visit().connect("alice", "named")
    alice.page.get_by_role("heading", name="named", level=1).wait_for()
    assert alice.page.get_by_role("button", name="1", exact=True).is_visible()
    assert alice.field("Room").is_visible()
    assert alice.page.get_by_role("button", name="Switch room", exact=True).is_visible()


@pytest.mark.parametrize("width", [320, 375])
def test_a_phone_shows_messages(visit: Visit, width: int) -> None:
    alice = visit(**{**PHONE, "viewport": {"width": width, "height": 667}}).connect("alice", "phone")
    assert alice.page.evaluate(HEIGHT, "head") <= 48
    assert alice.page.evaluate(HEIGHT, "scroll") >= 0.8 * 667
    for opener, what in (("Recent rooms", "rail"), ("1", "people")):
        drawer = alice.page.locator(f"#{what}")
        assert not drawer.is_visible()
        alice.press(opener) if what == "rail" else alice.page.locator("#crowd").click()
        drawer.wait_for()
        alice.page.keyboard.press("Escape")
        drawer.wait_for(state="hidden")
    alice.press("More")
    alice.press("Leave")
    says(alice, "Not connected.")


def test_a_few_messages_stand_at_the_bottom_under_the_beginning(visit: Visit) -> None:
    alice = visit(permissions=["clipboard-read", "clipboard-write"]).connect("alice", "short")
    alice.page.get_by_text("This is the beginning of #short.").wait_for()
    alice.say("hello")
    alice.log.locator(".sent").wait_for()
    row = alice.log.locator(".sent").bounding_box()
    log = alice.log.bounding_box()
    assert row is not None
    assert log is not None
    assert log["y"] + log["height"] - row["y"] - row["height"] < 20
    alice.press("Copy invitation")
    alice.page.wait_for_function(
        "async wanted => await navigator.clipboard.readText() === wanted", arg=f"{alice.server}/#short"
    )


def test_the_called_name_is_marked(visit: Visit) -> None:
    alice = visit().connect("alice", "marked")
    visit().connect("bob", "marked").say("so @Alice, and @alices")
    mark = alice.log.locator(".called mark")
    mark.wait_for()
    assert mark.all_text_contents() == ["@Alice"]


def test_only_what_happened_is_told_of_joins_and_leaves(visit: Visit) -> None:
    alice = visit().connect("alice", "joins")
    hear(alice, *({"event": "joined", "data": {"username": f"user{n}"}} for n in range(6)))
    alice.log.get_by_role("button", name="6 joined", exact=True).wait_for()


def test_text_bands_and_field_end_at_the_same_width(visit: Visit) -> None:
    alice = visit(viewport={"width": 2200, "height": 700}).connect("alice", "wide")
    visit().connect("bob", "wide").say("@alice " + "word " * 300)
    alice.log.locator(".called").wait_for()
    right = "selector => document.querySelector(selector).getBoundingClientRect().right"
    ends = [alice.page.evaluate(right, each) for each in (".called", "#say")]
    assert abs(ends[0] - ends[1]) < 2
    assert alice.page.evaluate(right, ".called .text") > ends[0] - 40


def test_rows_are_compact_and_the_clock_has_24_hours_where_that_is_chosen(visit: Visit) -> None:
    alice = visit(locale="en-US", timezone_id="UTC").connect("alice", "choices")
    hear(alice, {"event": "message", "data": {"username": "bob", "text": "when"}, "id": 1, "ts": 1.7e12})
    alice.log.locator(".clock", has_text="10:13 PM").wait_for()
    alice.press("More")
    alice.page.get_by_label("24-hour clock").check()
    alice.page.get_by_label("Compact rows").check()
    alice.log.locator(".clock", has_text="22:13").wait_for()
    alice.page.locator("body.compact").wait_for()
    alice.page.reload()
    alice.page.locator("body.compact").wait_for()


def test_it_can_be_installed_where_it_is_served(visit: Visit) -> None:
    alice = visit()
    alice.page.locator("link[rel=manifest]").wait_for(state="attached")
    session = alice.context.new_cdp_session(alice.page)
    manifest = session.send("Page.getAppManifest")
    assert manifest["errors"] == []
    assert '"standalone"' in manifest["data"]
    errors = [
        each["errorId"] for each in session.send("Page.getInstallabilityErrors")["installabilityErrors"]
    ]
    assert set(errors) <= {"in-incognito"}
    file = visit(from_file=True)
    still(file)
    assert file.page.locator("link[rel=manifest]").count() == 0


def test_an_older_browser_is_told(visit: Visit) -> None:
    alice = visit()
    assert not alice.page.locator("#old").is_visible()
    counts(alice.page.get_by_text("This browser is too old for this page"), 1)
