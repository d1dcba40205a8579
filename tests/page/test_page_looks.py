"""The page on screens of every size, in both schemes, by the keyboard alone, and read out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support import screenshots
from tests.support.browser import PAGE, Visit, counts, says, still
from tests.support.process import ROOT, ServerProcess

if TYPE_CHECKING:
    from playwright.sync_api import Browser

FITS = """(root => root.scrollWidth <= innerWidth && root.scrollHeight <= innerHeight)(
    document.documentElement)"""
WORST_CONTRAST = """() => {
    const canvas = new OffscreenCanvas(1, 1).getContext('2d', {willReadFrequently: true});
    const luminance = colour => {
        canvas.fillStyle = colour;
        canvas.fillRect(0, 0, 1, 1);
        const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map(value => value / 255)
            .map(value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const contrast = (one, other) => {
        const [light, dark] = [luminance(one), luminance(other)].sort((a, b) => b - a);
        return (light + 0.05) / (dark + 0.05);
    };
    const names = [...document.querySelectorAll('.who')];
    names.forEach((name, index) => name.style.setProperty('--hue', index * 15));
    const behind = ['--paper', '--panel', '--call'].map(
        name => getComputedStyle(document.body).getPropertyValue(name));
    return Math.min(...names.map(name => getComputedStyle(name).color)
        .flatMap(colour => behind.map(paper => contrast(colour, paper))));
}"""


def test_nothing_is_cut_off(visit: Visit) -> None:
    alice = visit()
    for width in (320, 375, 800, 1920):
        alice.page.set_viewport_size({"width": width, "height": 640})
        still(alice)
        assert alice.page.evaluate(FITS)
    alice.connect("alice", "looks")
    alice.say("w" * 500)
    alice.log.locator(".sent").wait_for()
    for width in (320, 375, 800, 1920):
        alice.page.set_viewport_size({"width": width, "height": 640})
        still(alice)
        assert alice.page.evaluate(FITS)
        assert alice.page.evaluate("$('scroll').scrollWidth <= $('scroll').clientWidth")


def test_the_end_stays_in_view_and_a_reader_of_the_past_is_left_there(visit: Visit) -> None:
    alice = visit(viewport={"width": 800, "height": 500}).connect("alice", "scroll")
    alice.page.evaluate("for (let number = 0; number < 40; number++) sendMessage(`message ${number}`)")
    counts(alice.log.locator(".sent"), 40)
    gap = "(box => box.scrollHeight - box.scrollTop - box.clientHeight)($('scroll'))"
    assert alice.page.evaluate(gap) < 2
    alice.page.set_viewport_size({"width": 400, "height": 400})
    still(alice)
    assert alice.page.evaluate(gap) < 2
    alice.page.evaluate("$('scroll').scrollTop = 50")
    still(alice)
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


def test_nothing_is_cut_off_while_the_token_is_renewed(visit: Visit) -> None:
    alice = visit(from_file=True).connect("alice", "renewing")
    alice.page.evaluate("receive(JSON.stringify({event: 'expiring', data: {in: 60}}))")
    alice.field("Token").wait_for()
    for width in (320, 375, 700, 1000, 1920):
        alice.page.set_viewport_size({"width": width, "height": 640})
        still(alice)
        assert alice.page.evaluate(FITS)
    alice.page.set_viewport_size({"width": 320, "height": 256})  # a window of 1280 by 1024 at 400 %
    still(alice)
    assert alice.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_page_is_used_by_the_keyboard_alone(visit: Visit) -> None:
    alice = visit()
    press = alice.page.keyboard.press
    typed = alice.page.keyboard.type
    for label, text in (("Username", "alice"), ("Token", "token-alice"), ("Room", "keyboard")):
        assert alice.field(label).evaluate("node => node === document.activeElement")
        press("Control+A")
        typed(text)
        press("Tab")
    press("Shift+Tab")
    press("Enter")
    says(alice, "Connected to #keyboard as alice.")
    typed("by the keyboard")
    press("Enter")
    alice.text("by the keyboard").wait_for()
    reached = []
    for _ in range(6):
        press("Shift+Tab")
        reached.append(alice.page.evaluate("document.activeElement.id || document.activeElement.textContent"))
    assert reached == ["invite", "scroll", "plus", "switch", "room", "keyboard"]
    alice.field("Room").focus()
    press("Control+A")
    typed("elsewhere")
    press("Enter")
    says(alice, "Connected to #elsewhere as alice.")
    assert alice.field("Message").evaluate("node => node === document.activeElement")


def test_names_have_colours_that_can_be_read(visit: Visit) -> None:
    """WCAG 1.4.3: a contrast of 4.5 for text, whatever hue a name is given, in both schemes."""
    alice = visit().connect("alice", "colours")
    alice.page.evaluate("for (let n = 0; n < 24; n++) sendMessage(`@${n}`)")
    counts(alice.log.locator(".sent"), 24)
    for scheme in ("light", "dark"):
        alice.page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
        assert alice.page.evaluate(WORST_CONTRAST) >= 4.5


def test_messages_are_read_out_once_and_history_is_not(visit: Visit) -> None:
    alice = visit().connect("alice", "aloud")
    alice.say("one")
    alice.log.locator(".sent").wait_for()
    assert alice.log.get_attribute("aria-live") == "polite"
    assert alice.page.evaluate("$('outbox').ariaLive") == "off"
    alice.page.evaluate(
        """() => {
            window.heard = [];
            const polite = node => node.closest('[aria-live]').ariaLive === 'polite';
            new MutationObserver(records => heard.push(...records.flatMap(
                ({addedNodes}) => [...addedNodes].filter(node => node.className && polite(node.parentNode))
            ).map(node => node.querySelector('.text')?.textContent))).observe(
                $('scroll'), {subtree: true, childList: true});
        }"""
    )
    alice.say("two")
    counts(alice.log.locator(".sent"), 2)
    assert [text for text in alice.page.evaluate("heard") if text] == ["two"]


def test_motion_is_reduced_where_that_is_wished(visit: Visit) -> None:
    alice = visit(reduced_motion="reduce").connect("alice", "still")
    alice.page.evaluate("transmit = () => 0")
    alice.say("waits")
    mark = alice.log.locator(".pending .mark")
    assert mark.evaluate("node => getComputedStyle(node).animationName") == "none"
    alice.page.emulate_media(reduced_motion="no-preference")
    assert mark.evaluate("node => getComputedStyle(node).animationName") == "late"


def test_text_from_right_to_left_code_and_links_are_shown_as_such(visit: Visit) -> None:
    alice = visit().connect("alice", "texts")
    for text in (
        "مرحبا بالعالم",
        "👩‍👩‍👧‍👦 🏳️‍🌈",
        "see https://example.org/a_(b), or `x <b>`",
        "```sh\nrm -rf x\n```",
    ):
        alice.say(text)
    counts(alice.log.locator(".sent"), 4)
    arabic, emoji, link, code = alice.log.locator(".text").all()
    assert arabic.evaluate("node => getComputedStyle(node).direction") == "rtl"
    assert emoji.text_content() == "👩‍👩‍👧‍👦 🏳️‍🌈"
    anchor = link.locator("a")
    assert [anchor.get_attribute(name) for name in ("href", "rel", "target")] == [
        "https://example.org/a_(b)",
        "noopener",
        "_blank",
    ]
    assert link.text_content() == "see https://example.org/a_(b), or `x <b>`"
    assert link.inner_text() == "see https://example.org/a_(b), or x <b>"
    assert code.inner_text().strip() == "rm -rf x"
    assert code.locator("code").evaluate("node => getComputedStyle(node).whiteSpace") == "pre-wrap"


def test_pictures_of_the_page_are_made(browser: Browser, page_server: ServerProcess) -> None:
    made = screenshots.make_all(browser, page_server, screenshots.ARTEFACTS / "page")
    assert len(made) == 8
    assert all(path.stat().st_size > 5_000 for path in made)


def test_the_picture_in_the_readme_is_there_and_small() -> None:
    assert "docs/images/page.png" in (ROOT / "README.md").read_text("utf-8")
    assert screenshots.README_IMAGE.stat().st_size < 150_000


def test_the_page_is_small() -> None:
    assert PAGE.stat().st_size < 100_000
