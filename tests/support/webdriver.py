"""Firefox and WebKitGTK for tests, and windows of them: what the page is to a browser that is not Chromium.

    with firefox() as engine:
        alice = Window(engine, server.url).connect("alice", "general")
        alice.say("hello")

1. Firefox speaks WebDriver BiDi itself, and the driver of WebKitGTK the older WebDriver. Tests ask seven
   things of a browser (`Engine`), so no library stands between.
2. Keys go through the browser's own input. A condition is asked for again and again, with much patience: a
   busy machine is no failure.
3. Every page is watched: an exception, a warning, or a violation of the policy fails the test when its window
   closes. Every window counts as looked at, whichever is in front.
4. Without the browser the tests are skipped with a reason on a developer's machine, and fail where the
   environment says CI.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from http.client import HTTPConnection
from itertools import count
from pathlib import Path
from typing import Any, Protocol, Self

from websockets.sync.client import ClientConnection, connect

from tests.support.browser import missing
from tests.support.proxies import free_port
from tests.support.scene import await_true

ENTER, TAB, SHIFT, CONTROL, ARROW_DOWN = "\ue007", "\ue004", "\ue008", "\ue009", "\ue015"
PATIENCE = 60.0
"""Seconds that a test waits for what has to come."""
WIDE = (1100, 700)

_WATCH = """(() => {
    window.problems = [];
    document.hasFocus = () => true;
    dispatchEvent(new Event('focus'));
    console.warn = console.error = (...all) => problems.push(all.join(' '));
    for (const type of ['error', 'unhandledrejection', 'securitypolicyviolation'])
        addEventListener(type, event => problems.push(
            `${type} ${event.message ?? event.reason ?? event.blockedURI}`));
})()"""

_SAID = "[...$('rows').querySelectorAll('.sent .text')].map(node => node.innerText.trim())"


class Engine(Protocol):
    """A running browser. A window is named by what `open` gave."""

    def open(self) -> str:
        """A new window."""

    def close(self, window: str) -> None:
        """Close it."""

    def goto(self, window: str, url: str) -> None:
        """Load a page, and wait until that is done."""

    def reload(self, window: str) -> None:
        """Load it again, and wait until that is done."""

    def evaluate(self, window: str, expression: str) -> str | None:
        """The value of an expression of JavaScript."""

    def act(self, window: str, actions: list[dict[str, Any]]) -> None:
        """Keys, in WebDriver's words."""

    def resize(self, window: str, width: int, height: int) -> None:
        """Give it this size."""


class Firefox:
    """By WebDriver BiDi."""

    def __init__(self, line: ClientConnection) -> None:
        """`line` leads to the browser, which ends when it does."""
        self._line = line
        self._numbers = count(1)
        self._ask("session.new", capabilities={})

    def _ask(self, method: str, **params: Any) -> Any:
        number = next(self._numbers)
        self._line.send(json.dumps({"id": number, "method": method, "params": params}))
        while (answer := json.loads(self._line.recv(PATIENCE))).get("id") != number:
            pass  # an event
        assert answer["type"] == "success", answer
        return answer["result"]

    def open(self) -> str:
        window: str = self._ask("browsingContext.create", type="window")["context"]
        return window

    def close(self, window: str) -> None:
        self._ask("browsingContext.close", context=window)

    def goto(self, window: str, url: str) -> None:
        self._ask("browsingContext.navigate", context=window, url=url, wait="complete")

    def reload(self, window: str) -> None:
        self._ask("browsingContext.reload", context=window, wait="complete")

    def evaluate(self, window: str, expression: str) -> str | None:
        target = {"context": window}
        answer = self._ask("script.evaluate", expression=expression, target=target, awaitPromise=False)
        assert answer["type"] == "success", answer["exceptionDetails"]["text"]
        value: str | None = answer["result"].get("value")
        return value

    def act(self, window: str, actions: list[dict[str, Any]]) -> None:
        self._ask("input.performActions", context=window, actions=actions)

    def resize(self, window: str, width: int, height: int) -> None:
        self._ask("browsingContext.setViewport", context=window, viewport={"width": width, "height": height})


class WebKit:
    """By WebDriver. What is asked is asked of the window that it was switched to."""

    def __init__(self, port: int) -> None:
        """`port` is the driver's."""
        self._http = HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        self._session = ""
        self._current = ""
        answer = self._ask("POST", "", capabilities={"alwaysMatch": {}})
        self._session = f"/{answer['sessionId']}"
        self._first = self._ask("GET", "/window")

    def _ask(self, method: str, path: str, **body: Any) -> Any:
        self._http.request(method, f"/session{self._session}{path}", json.dumps(body))
        answer = self._http.getresponse()
        value = json.load(answer)["value"]
        assert answer.status == 200, value
        return value

    def _of(self, window: str, method: str, path: str, **body: Any) -> Any:
        if window != self._current:
            self._ask("POST", "/window", handle=window)
            self._current = window
        return self._ask(method, path, **body)

    def open(self) -> str:
        answer = self._of(self._first, "POST", "/window/new", type="window")  # a new tab would stay hidden
        window: str = answer["handle"]
        return window

    def close(self, window: str) -> None:
        self._of(window, "DELETE", "/window")

    def goto(self, window: str, url: str) -> None:
        self._of(window, "POST", "/url", url=url)

    def reload(self, window: str) -> None:
        self._of(window, "POST", "/refresh")

    def evaluate(self, window: str, expression: str) -> str | None:
        value: str | None = self._of(window, "POST", "/execute/sync", script=f"return {expression}", args=[])
        return value

    def act(self, window: str, actions: list[dict[str, Any]]) -> None:
        self._of(window, "POST", "/actions", actions=actions)

    def resize(self, window: str, width: int, height: int) -> None:
        """What stands around the page has its share, too."""
        around = [int(part) for part in str(self.evaluate(window, _AROUND)).split()]
        self._of(window, "POST", "/window/rect", width=width + around[0], height=height + around[1])

    def end(self) -> None:
        """End the browser."""
        self._ask("DELETE", "")
        self._http.close()


_AROUND = "`${outerWidth - innerWidth} ${outerHeight - innerHeight}`"


def _executable(name: str, package: str) -> str:
    path = shutil.which(name)
    if path is None:
        missing(f"there is no {name} on the path (apt install {package})")
    return path


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def _running(
    command: Sequence[str], env: Mapping[str, str], pass_fds: Sequence[int] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """A process, and whatever it starts, up to the end."""
    process = subprocess.Popen(
        command,
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=pass_fds,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextlib.contextmanager
def firefox() -> Iterator[Firefox]:
    """A running Firefox without a screen, in a new profile."""
    path = _executable("firefox-esr", "firefox-esr")
    with tempfile.TemporaryDirectory(prefix="firefox-", ignore_cleanup_errors=True) as home:
        told = Path(home) / "WebDriverBiDiServer.json"
        command = [path, "--headless", "--no-remote", "--profile", home, "--remote-debugging-port", "0"]
        with _running(command, {"HOME": home}):
            await_true(lambda: told.exists() and told.read_text().endswith("}"), "Firefox is there", PATIENCE)
            at = json.loads(told.read_text())
            with connect(f"ws://{at['ws_host']}:{at['ws_port']}/session", max_size=None) as line:
                yield Firefox(line)


@contextlib.contextmanager
def webkit() -> Iterator[WebKit]:
    """A running MiniBrowser, WebKitGTK's own, on a screen that nobody sees."""
    path = _executable("WebKitWebDriver", "webkit2gtk-driver")
    screen = _executable("Xvfb", "xvfb")
    port = free_port()
    readable, writable = os.pipe()
    with (
        tempfile.TemporaryDirectory(prefix="webkit-", ignore_cleanup_errors=True) as home,
        open(readable) as told,
        _running([screen, "-displayfd", str(writable), "-screen", "0", "1400x1000x24"], {}, (writable,)),
    ):
        os.close(writable)
        display = f":{told.readline().strip()}"
        alone = {"GSETTINGS_BACKEND": "memory", "NO_AT_BRIDGE": "1", "WEBKIT_DISABLE_DMABUF_RENDERER": "1"}
        env = {"DISPLAY": display, "HOME": home, **alone}
        with _running([path, f"--port={port}"], env):
            await_true(lambda: _listens(port), "the driver listens", PATIENCE)
            engine = WebKit(port)
            yield engine
            engine.end()


class Window:
    """One person at one page, in a window of their own."""

    def __init__(self, engine: Engine, url: str) -> None:
        """`url` is the page's."""
        self._engine = engine
        self._name = engine.open()
        self.goto(url)
        self.resize(*WIDE)

    def goto(self, url: str) -> None:
        """Load a page."""
        self._engine.goto(self._name, url)
        self._watch()

    def reload(self) -> None:
        """Load it again."""
        self._engine.reload(self._name)
        self._watch()

    def _watch(self) -> None:
        self.run(_WATCH)
        self.until("Boolean(document.body.dataset.phase) || !document.getElementById('rest')")

    def resize(self, width: int, height: int) -> None:
        """Give the page this much room, and wait until it has it."""
        self._engine.resize(self._name, width, height)
        self.until("(...size) => `${size}` === `${[innerWidth, innerHeight]}`", width, height)

    def close(self) -> None:
        """Close the window; what went wrong in it fails here."""
        problems = self.run("problems")
        self._engine.close(self._name)
        assert problems == []

    # What the page shows

    def run(self, what: str, *arguments: object) -> Any:
        """The value of an expression, or, with arguments, what the function that it is gives for them."""
        called = f"({what})(...{json.dumps(arguments)})" if arguments else what
        value = self._engine.evaluate(self._name, f"JSON.stringify({called})")
        return None if value is None else json.loads(value)

    def do(self, statements: str) -> None:
        """Carry these out."""
        self.run(f"(() => {{ {statements} }})()")

    def until(self, what: str, *arguments: object) -> None:
        """Wait until that holds."""
        await_true(
            lambda: self.run(what, *arguments), lambda: self._instead_of(what, *arguments), PATIENCE, 0.05
        )

    def _instead_of(self, *wanted: object) -> str:
        shown = "[innerWidth, innerHeight, $('status').textContent, document.body.innerText, problems]"
        return f"{wanted} never held: {self.run(shown)}"

    def says(self, text: str) -> None:
        """Wait until the status contains `text`."""
        self.until("text => $('status').textContent.includes(text)", text)

    def shows(self, *texts: str) -> None:
        """Wait until these are the messages that were said."""
        self.until(f"(...texts) => `${{texts}}` === `${{{_SAID}}}`", *texts)

    # What a person does

    def press(self, *keys: str, holding: str = "") -> None:
        """Press one key after the other, while one is held."""
        pressed = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        held = [{"type": "keyDown", "value": holding}, *pressed, {"type": "keyUp", "value": holding}]
        self._engine.act(
            self._name, [{"type": "key", "id": "keyboard", "actions": held if holding else pressed}]
        )

    def fill(self, field: str, text: str) -> None:
        """Type `text` in the place of what stands there."""
        self.run("id => { $(id).focus(); $(id).select(); }", field)
        self.press(*text)

    def connect(self, username: str, room: str) -> Self:
        """Fill in the form, and wait until the room is there."""
        for field, text in (("username", username), ("token", "token-alice"), ("room", room)):
            self.fill(field, text)
        self.press(ENTER)
        self.says(f"Connected to #{room} as {username}.")
        return self

    def switch(self, room: str) -> None:
        """Go to another room, and wait until it is there."""
        self.fill("room", room)
        self.press(ENTER)
        self.says(f"Connected to #{room} as ")

    def say(self, text: str) -> None:
        """Send a message."""
        self.fill("message", text)
        self.press(ENTER)
