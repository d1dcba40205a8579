"""The page on screens of every size, in both schemes, and by the keyboard alone."""

from __future__ import annotations

from tests.support.browser import Visit, counts


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
