"""axe finds nothing serious in the page, before and after connecting, in both schemes and on a small screen.

`./test.sh` installs axe from tests/axe; without it these tests are skipped with a reason, and fail in CI.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

from tests.support.browser import Visit, Visitor, says
from tests.support.process import ROOT
from tests.support.scripted import Scripted

AXE = ROOT / ".build" / "axe" / "node_modules" / "axe-core" / "axe.min.js"


@pytest.fixture(scope="module")
def axe() -> str:
    if not AXE.is_file():
        message = f"{AXE} is not there: ./test.sh installs it, if there is npm"
        if os.environ.get("CI", "").lower() in {"1", "true", "yes"}:
            pytest.fail(message)
        pytest.skip(message)
    return AXE.read_text("utf-8")


def faults(visitor: Visitor, axe: str) -> list[Any]:
    """What axe finds, and where."""
    visitor.page.evaluate(axe)
    found: list[Any] = visitor.page.evaluate(
        """async () => (await axe.run()).violations.map(
            ({id, impact, nodes}) => [id, impact, ...nodes.map(node => [node.html, node.failureSummary])])"""
    )
    return found


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 1200])
def test_axe_finds_nothing(visit: Visit, axe: str, scheme: str, width: int) -> None:
    alice = visit(color_scheme=scheme, viewport={"width": width, "height": 700})
    assert faults(alice, axe) == []
    alice.enter("alice", token="wrong")
    says(alice, "This token is not valid.")
    assert faults(alice, axe) == []
    room = f"axe-{scheme}-{width}"
    alice.connect("alice", room)
    bob = visit().connect("bob", room)
    bob.say("@alice see https://example.org/ and `this`:\n```\ncode\n```")
    alice.log.locator("code.block").wait_for()
    alice.page.evaluate("state.limits = {}")  # a server that tells none
    alice.say("x" * 4001)
    alice.log.get_by_text("not sent").wait_for()
    alice.page.evaluate("state.following = false, state.away = true, onScroll = () => 0")
    bob.say("unread")
    alice.log.get_by_text("New", exact=True).wait_for()
    assert faults(alice, axe) == []
    alice.press("Notifications")
    assert faults(alice, axe) == []
    alice.forgive("console: Failed to load resource")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 1200])
def test_axe_finds_nothing_in_what_moderators_see(visit: Visit, axe: str, scheme: str, width: int) -> None:
    alice = visit(color_scheme=scheme, viewport={"width": width, "height": 700})
    told = {
        "event": "sanctions",
        "data": {"sanctions": [{"action": "ban", "username": "dan", "by": "carol"}]},
    }
    room = Scripted(alice, sanctions=told).connect()
    room.say("bob", "first")
    room.tell("edited", {"id": room.say("bob", "second"), "username": "bob", "text": "so", "by": "bob"})
    room.tell("deleted", {"id": room.say("bob", "third"), "username": "bob", "by": "carol"})
    alice.say("mine")
    alice.log.locator(".sent", has_text="mine").wait_for()
    alice.log.get_by_text("first").hover()
    alice.press("More actions")
    assert faults(alice, axe) == []
    alice.page.get_by_role("menuitem", name="Mute bob").click()
    assert faults(alice, axe) == []
    alice.press("Mute bob")
    alice.log.get_by_text("alice muted bob for 10 minutes").wait_for()
    alice.press("More")
    alice.press("Muted and banned")
    alice.page.get_by_text("carol banned dan").wait_for()
    assert faults(alice, axe) == []
    alice.page.keyboard.press("Escape")
    alice.field("Message").press("ArrowUp")
    alice.page.get_by_text("Editing").wait_for()
    assert faults(alice, axe) == []
    room.tell("moderated", {"action": "mute", "username": "alice", "by": "carol"})
    alice.page.get_by_text("You are muted.").wait_for()
    assert faults(alice, axe) == []
