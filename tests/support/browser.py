"""A real Chromium for tests, and people who use the page in it.

1. Every visitor is watched: an error on the console, an exception, a dialog, a violation of the policy, or
   a request to anywhere but the page and the server under test is a problem, and problems fail the test.
2. Without Chromium or Playwright the tests are skipped with a reason on a developer's machine, and fail where
   the environment says CI.
3. Playwright's synchronous interface is used in plain functions only: it can't run inside Trio.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Dialog, Locator, Page

PAGE = Path(__file__).resolve().parents[2] / "client.html"
_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)
_NEEDLESS = (
    # The list below the address of each window: another process for each, which takes longer than the page.
    *("WebUIOmniboxPopup", "WebUIOmniboxFullPopup", "WebUIOmniboxAimPopup"),
    # The last list that Chromium is given counts, so this one names what Playwright's does.
    *("AvoidUnnecessaryBeforeUnloadCheckSync", "DestroyProfileOnBrowserClose", "HttpsUpgrades"),
    *("HttpsFirstBalancedModeAutoEnable", "LensOverlay", "MediaRouter", "PaintHolding"),
    *("ThirdPartyStoragePartitioning", "AvoidCorsURLLoaderRestartOnRedirect", "TcpPortRandomizationWin"),
    *("OptimizationHints", "NetworkTimeServiceQuerying", "AimEnabled", "PreconnectToSearch"),
)
"""Features of Chromium that no test looks at."""
PATIENCE = 30_000
"""Milliseconds that a test waits for what has to come: more than the longest back-off of the page."""

_LOOKED_AT = "document.hasFocus = () => true"  # whichever of the visitors' windows is in front
_STARTED = "() => document.body?.dataset.phase || !document.getElementById('rest')"
"""The rest of the page's script runs behind the first frame. What is in front of the page may have none."""
_REPORT_VIOLATIONS = """
    addEventListener('securitypolicyviolation', event =>
        console.error(`violation of ${event.violatedDirective}: ${event.blockedURI}`));
"""
_KEEP_FRAMES = """{
    const frame = requestAnimationFrame
    Object.defineProperty(window, "requestAnimationFrame", {get: () => frame, set() {}})
}"""
"""The clock that Playwright puts in place can't take the frames: it would never give those that it took."""


def missing(what: str) -> NoReturn:
    message = f"the page is not tested: {what}"
    if os.environ.get("CI", "").lower() in {"1", "true", "yes"}:
        pytest.fail(message)
    pytest.skip(message)


@contextmanager
def chromium(*flags: str) -> Iterator[Browser]:
    """A running browser; `CHROMIUM` names another executable than the one on the path."""
    try:
        from playwright.sync_api import sync_playwright  # noqa: PLC0415
    except ImportError:
        missing("Playwright is not installed (pip install playwright)")
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        missing("there is no chromium on the path (apt install chromium)")
    needless = f"--disable-features={','.join(_NEEDLESS)}"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=[*_FLAGS, needless, *flags])
        yield browser
        browser.close()


def shows(locator: Locator, *texts: str) -> None:
    """Wait until `locator` matches exactly these texts, in this order."""
    from playwright.sync_api import expect  # noqa: PLC0415

    expect(locator).to_have_text(list(texts), timeout=PATIENCE)


def reads(locator: Locator, *texts: str) -> None:
    """Like `shows`, but white space counts."""
    wanted = list(texts)
    deadline = time.monotonic() + PATIENCE / 1000
    while (found := locator.all_text_contents()) != wanted:
        assert time.monotonic() < deadline, f"{found} instead of {wanted}"
        locator.page.wait_for_timeout(20)  # by the clock of the driver: the page's may stand still


def holds(field: Locator, text: str) -> None:
    """Wait until exactly `text` stands in `field`."""
    from playwright.sync_api import expect  # noqa: PLC0415

    expect(field).to_have_value(text, timeout=PATIENCE)


def counts(locator: Locator, number: int) -> None:
    """Wait until `locator` matches `number` elements."""
    from playwright.sync_api import expect  # noqa: PLC0415

    expect(locator).to_have_count(number, timeout=PATIENCE)


def says(visitor: Visitor, text: str | re.Pattern[str]) -> None:
    """Wait until the status contains `text`."""
    visitor.status.filter(has_text=text).wait_for()


def members(visitor: Visitor, *names: str) -> None:
    """Wait until exactly these are listed."""
    shows(visitor.members, *names)


def still(visitor: Visitor, frames: int = 6) -> None:
    """Let so many frames pass: after six a change has gone through layout, observers and drawing."""
    visitor.page.evaluate(
        """async frames => {
            for (; frames > 0; frames--) await new Promise(requestAnimationFrame);
        }""",
        frames,
    )


def stop_clock(visitor: Visitor) -> None:
    """Time stands still in the page but for `page.clock.run_for`, also after a reload.

    The browser's frames come all the same, so the page is drawn. Timers that run already go on.
    """
    page = visitor.page
    now = page.evaluate("Date.now() / 1000")
    page.add_init_script(_KEEP_FRAMES)
    page.evaluate(_KEEP_FRAMES)
    page.clock.install(time=now - 3600)  # it goes until it is stopped, and can't be stopped in its past
    page.clock.pause_at(now)


class Visitor:
    """One person at one page, in a browser profile of their own."""

    def __init__(
        self,
        browser: Browser,
        server: str,
        *,
        from_file: bool = False,
        beside: Visitor | None = None,
        place: str = "",
        **context: Any,
    ) -> None:
        """`server` is the server's http URL; `context` goes to the browser (`viewport`, `color_scheme` …).

        `beside` is another visitor, in whose browser profile this tab opens; `place` follows the address.
        """
        self.server = server.rstrip("/")
        self.from_file = from_file
        self.address = (PAGE.as_uri() if from_file else f"{self.server}/") + place
        self.own = PAGE.as_uri() if from_file else f"{self.server}/"
        self.is_guest = beside is not None
        self.problems: list[str] = []
        self.expected: set[str] = set()
        self.overlooked: set[str] = set()
        self.requests: list[str] = []
        self.warnings = 0
        self.context: BrowserContext = beside.context if beside else browser.new_context(**context)
        self.context.set_default_timeout(PATIENCE)
        self.page: Page = self.context.new_page()
        self._watch()
        self.page.goto(self.address)
        self.wait_started()

    def _watch(self) -> None:
        self.page.add_init_script(_LOOKED_AT)
        self.page.add_init_script(_REPORT_VIOLATIONS)
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.problems.append(f"exception: {error}"))
        self.page.on("dialog", self._dismiss)
        self.page.on("request", lambda request: self._note(request.url))
        self.page.on("websocket", lambda socket: self._note(socket.url))

    def _dismiss(self, dialog: Dialog) -> None:
        if dialog.type == "beforeunload":  # the page warns of what is not sent yet
            self.warnings += 1
            dialog.accept()
            return
        self.problems.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.problems.append(f"console: {message.text}")

    def _note(self, url: str) -> None:
        self.requests.append(url)
        own = (self.own, f"{self.server}/", f"ws{self.server.removeprefix('http')}/", "data:")
        if not url.startswith(own):
            self.problems.append(f"request to {url}")

    def wait_started(self) -> None:
        """Wait until the page does what it is told."""
        self.page.wait_for_function(_STARTED)

    # What the page shows

    @property
    def status(self) -> Locator:
        """Where refusals and states stand."""
        return self.page.get_by_role("status")

    @property
    def log(self) -> Locator:
        """The conversation."""
        return self.page.get_by_role("log")

    @property
    def members(self) -> Locator:
        """The names of those in the room, one item each."""
        return self.page.get_by_role("list", name="Members").get_by_role("listitem")

    def text(self, text: str) -> Locator:
        """The messages whose whole text is `text`."""
        return self.log.get_by_text(text, exact=True)

    # What a person does

    def field(self, label: str) -> Locator:
        """The field with this label."""
        return self.page.get_by_label(label, exact=True)

    def press(self, name: str) -> None:
        """Press the button `name`."""
        self.page.get_by_role("button", name=name, exact=True).click()

    def enter(self, username: str, token: str = "token-alice", room: str = "general") -> None:
        """Fill in the form and press Connect, without waiting for what comes of it."""
        self.wait_started()
        if self.from_file:
            self.field("Server").fill("ws" + self.server.removeprefix("http"))
        self.field("Username").fill(username)
        self.field("Token").fill(token)
        self.field("Room").fill(room)
        self.press("Connect")

    def connect(self, username: str, room: str = "general") -> Visitor:
        """Connect, and wait until the room is there."""
        self.enter(username, room=room)
        self.page.get_by_text(f"Connected to #{room} as {username}.").wait_for()
        return self

    def say(self, text: str) -> None:
        """Send a message."""
        self.field("Message").fill(text)
        self.press("Send")

    def switch(self, room: str) -> None:
        """Press Switch room with `room` in its field; on a small screen both are in a drawer."""
        drawer = self.page.get_by_role("button", name="Recent rooms", exact=True)
        if drawer.is_visible():
            drawer.click()
        self.field("Room").fill(room)
        self.press("Switch room")

    # The end

    def forgive(self, *beginnings: str) -> None:
        """Expect problems that begin so. Chromium may report them late: they are looked for at the end."""
        self.expected.update(beginnings)

    def overlook(self, *beginnings: str) -> None:
        """Let problems pass that begin so, whether they come or not: that depends on who is quicker."""
        self.overlooked.update(beginnings)

    def close(self) -> None:
        """Close the browser profile; what went wrong unexpectedly, or didn't as expected, fails here."""
        if self.is_guest:
            self.page.close()
        else:
            self.context.close()
        unexpected = [p for p in self.problems if not p.startswith((*self.expected, *self.overlooked))]
        missing = [b for b in self.expected if not any(p.startswith(b) for p in self.problems)]
        assert not unexpected, "\n".join(unexpected)
        assert not missing, f"expected and not seen: {missing}"


Visit = Callable[..., Visitor]
