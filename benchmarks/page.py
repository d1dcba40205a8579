"""How smooth the page stays: 10,000 messages, 50 more a second, 1,000 members, long texts in two tabs.

A real Chromium shows the page of our server, and in each phase the tasks of the page's main thread are timed
from Chromium's own trace: by the clock, as a person feels them, and by the CPU time that they took, which
other work on the machine lengthens little. A task over 50 ms is a stutter, a "long task" of the web. The
first paint is held against that of an empty file, by loads that alternate.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import resource
import shlex
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import wire
from benchmarks.systems import OURS, Server, System, options, running

TEXTS = (
    "short and sweet",
    "The list is at https://example.org/cables and in `cables.txt`, as always; ask me where it is not.",
    "A longer one, as people write them when they have something to explain to everybody who is here, and "
    "that takes a few lines on most screens, so that there is something to wrap and to measure.",
    "```\n./check.sh --all --span 30\n./check.sh --north\n```",
    "مرحبا! أنا في الطريق",
)
LONG_TEXTS = (("\n".join(TEXTS) * 6)[:1_994],)  # a number is added
LONG = 50.0  # milliseconds
EMPTY = b"<!DOCTYPE html><title>empty</title>."
TASK = "RunTask"
# Frames of one author, `rate` in a second, 0 for as fast as they are taken; done when the last has come back.
SEND = """([address, texts, count, rate]) => new Promise(done => {
    const socket = new WebSocket(address, ['chatroom.v1', 'bearer.dev-token']);
    let sent = 0;
    let back = 0;
    const text = () => texts[sent % texts.length] + ' ' + sent++;
    const send = () => socket.send(JSON.stringify({event: 'message', data: {text: text()}, cid: `c${sent}`}));
    const clock = rate ? setInterval(() => sent < count ? send() : clearInterval(clock), 1000 / rate) : 0;
    socket.onopen = () => { if (!rate) for (let first = 0; first < 64; first++) send(); };
    socket.onmessage = ({data}) => {
        if (!data.includes('"cid"')) return;
        back += 1;
        if (back === count) { socket.close(); done(); }
        else if (!rate && sent < count) send();
    };
})"""


def chromium_path() -> str | None:
    """Where the browser is; `CHROMIUM` names another one than that on the path."""
    return os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


def missing() -> str | None:
    """What this program would need and isn't there."""
    if importlib.util.find_spec("playwright") is None:
        return "Playwright, which ./test.sh installs: run it by .venv/bin/python"
    return None if chromium_path() else "chromium (apt install chromium)"


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """A running browser."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - only this program needs it

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium_path(), args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()


@dataclass(frozen=True, slots=True)
class Tasks:
    """The tasks of a phase, each in milliseconds by the clock and of CPU time."""

    clock: list[float]
    cpu: list[float]

    @classmethod
    def of(cls, trace: bytes) -> "Tasks":
        """Those of the main thread in a trace of one page."""
        events = json.loads(trace)["traceEvents"]
        threads = {
            (event["pid"], event["tid"])
            for event in events
            if event["name"] == "thread_name" and event["args"]["name"] == "CrRendererMain"
        }
        tasks = [
            event
            for event in events
            if event["ph"] == "X" and event["name"] == TASK and (event["pid"], event["tid"]) in threads
        ]
        return cls([t["dur"] / 1000 for t in tasks], [t.get("tdur", 0) / 1000 for t in tasks])

    def __str__(self) -> str:
        long = [sum(duration > LONG for duration in durations) for durations in (self.clock, self.cpu)]
        most = [max(durations, default=0) for durations in (self.cpu, self.clock)]
        return (
            f"longest {most[0]:3.0f} ms of CPU, {most[1]:3.0f} by the clock; "
            f"over {LONG:.0f} ms: {long[0]} by the clock, {long[1]} of CPU"
        )


class Reader:
    """The page as one person has it open, perhaps in a tab beside another; each phase is traced."""

    def __init__(self, browser: Any, url: str, beside: "Reader | None" = None) -> None:
        self.browser = browser
        self.context = (
            beside.context if beside else browser.new_context(viewport={"width": 1200, "height": 800})
        )
        self.page = self.context.new_page()
        self.page.set_default_timeout(120_000)
        self.page.goto(url)
        self.page.locator("body[data-phase]").wait_for()  # most of its script runs behind the first frame
        self.worst = 0.0

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """What is done here is traced, and its tasks are printed."""
        self.browser.start_tracing(page=self.page, categories=["disabled-by-default-devtools.timeline"])
        yield
        self.page.wait_for_timeout(500)
        tasks = Tasks.of(self.browser.stop_tracing())
        self.worst = max(self.worst, *tasks.cpu, 0.0)
        print(f"  {name:42} {tasks}", flush=True)

    def connect(self, username: str, room: str = "bench") -> None:
        """Enter the room."""
        for label, value in (("Username", username), ("Token", "dev-token"), ("Room", room)):
            self.page.get_by_label(label, exact=True).fill(value)
        self.page.get_by_role("button", name="Connect", exact=True).click()
        self.page.get_by_text(f"Connected to #{room}").wait_for()

    def wheel(self, pixels: int, seconds: float) -> None:
        """Turn the wheel that far every 50 ms."""
        self.page.mouse.move(600, 400)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.page.mouse.wheel(0, pixels)
            self.page.wait_for_timeout(50)

    def read_all(self, count: int) -> None:
        """Scroll up until everything was loaded."""
        self.page.bring_to_front()
        while self.page.evaluate("state.room.log.length") < count:
            self.page.evaluate("document.getElementById('scroll').scrollTop = 0")
            self.page.wait_for_timeout(20)


class _Empty(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(EMPTY)))
        self.end_headers()
        self.wfile.write(EMPTY)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def empty_file() -> Iterator[str]:
    """The URL of a page with nothing but a full stop."""
    server = ThreadingHTTPServer((wire.HOST, 0), _Empty)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://{wire.HOST}:{server.server_port}/"
    server.shutdown()
    server.server_close()


def first_paints(browser: Any, urls: Sequence[str], times: int = 40) -> list[float]:
    """Milliseconds from the navigation to the first contentful paint of each page: the median of so many
    alternating loads, in new profiles."""
    found: list[list[float]] = [[] for _ in urls]
    for _ in range(times):
        for url, its in zip(urls, found, strict=True):
            page = browser.new_context().new_page()
            page.goto(url)
            paint = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
            page.wait_for_function(f"() => {paint}")
            its.append(page.evaluate(paint))
            page.context.close()
    return [median(its) for its in found]


def crowd(port: int, count: int) -> list[socket.socket]:
    """So many members more."""
    return [wire.connect(port, f"member-{number}", "bench") for number in range(count)]


def measure(browser: Any, server: Server, args: argparse.Namespace) -> float:
    """Milliseconds of CPU time of the longest task."""
    url = f"http://{wire.HOST}:{server.port}/"
    writer = browser.new_context().new_page()
    writer.set_default_timeout(120_000)
    writer.goto(url)
    return max(measure_many(browser, server, writer, args), measure_long(browser, server, writer, args))


def writers_address(server: Server, room: str) -> str:
    """Where the writer of a room connects to."""
    return f"ws://{wire.HOST}:{server.port}/?username=bob&room={room}"


def measure_many(browser: Any, server: Server, writer: Any, args: argparse.Namespace) -> float:
    """Many messages and members."""
    address = writers_address(server, "bench")
    writer.evaluate(SEND, [address, TEXTS, args.messages, 0])
    reader = Reader(browser, writer.url)
    with reader.phase("entering the room"):
        reader.connect("alice")
    with reader.phase("loading all history, page by page"):
        reader.read_all(args.messages)
    with reader.phase("scrolling through it"):
        reader.wheel(2000, 4)
        reader.wheel(-700, 4)
    with reader.phase(f"{args.rate} messages a second, at the end"):
        reader.page.evaluate("toEnd()")  # no look for a label: the look itself would take long
        writer.evaluate(SEND, [address, TEXTS, args.rate * 8, args.rate])
    with reader.phase(f"{args.rate} messages a second, while scrolling"):
        start = f"([all]) => {{ window.sending = ({SEND})(all); }}"
        writer.evaluate(start, [[address, TEXTS, args.rate * 8, args.rate]])
        reader.wheel(-500, 4)
        reader.wheel(500, 4)
        writer.evaluate("window.sending")
    with reader.phase(f"{args.members:,} members come in at once"):
        members = crowd(server.port, args.members)
        reader.page.wait_for_function("count => state.room.members.length > count", arg=args.members)
    with reader.phase("and leave again"):
        for member in members:
            member.close()
        reader.page.wait_for_function("() => state.room.members.length < 3")
    reader.context.close()
    return reader.worst


def measure_long(browser: Any, server: Server, writer: Any, args: argparse.Namespace) -> float:
    """Long texts, in two tabs of one person."""
    address = writers_address(server, "long")
    writer.evaluate(SEND, [address, LONG_TEXTS, args.long, 0])
    reader = Reader(browser, writer.url)
    twin = Reader(browser, writer.url, beside=reader)
    with reader.phase("long texts, two tabs: entering the room"):
        for tab in (reader, twin):
            tab.connect("alice", "long")
    with reader.phase("loading all history, in both"):
        for tab in (reader, twin):
            tab.read_all(args.long)
    with twin.phase("scrolling through it"):
        twin.wheel(-2000, 4)
        twin.wheel(2000, 4)
    with reader.phase("10 messages a second, at the end of both"):
        for tab in (reader, twin):
            tab.page.evaluate("toEnd()")
        writer.evaluate(SEND, [address, LONG_TEXTS, 80, 10])
    reader.context.close()
    return max(reader.worst, twin.worst)


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = options(__doc__, names=(OURS,), builds=False)
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument(
        "--long", type=int, default=5_000, help="texts of 2,000 characters, in a room of their own"
    )
    parser.add_argument("--rate", type=int, default=50)
    parser.add_argument("--members", type=int, default=1_000)
    parser.add_argument(
        "--at-most",
        type=float,
        default=float("inf"),
        metavar="MS",
        help="exit 1 if a task took more CPU time",
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Measure our page, and print what a person would feel."""
    args = parse(argv)
    if what := missing():
        print(f"page: not measured, for want of {what}")
        return 0
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print(f"page: {args.messages:,} messages, {args.rate} a second, {args.members:,} members")
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "chat.db"
        command = (*shlex.split(args.ours), "--port", "0", "--rate", "0", "--db", str(log))
        with running(System(OURS, command)) as server, chromium() as browser:
            with empty_file() as empty:
                paint, least = first_paints(browser, [f"http://{wire.HOST}:{server.port}/", empty])
            print(f"  first paint after {paint:.0f} ms, an empty file's {least:.0f} ms: {paint / least:.2f}")
            worst = measure(browser, server, args)
    print(f"  longest task {worst:.0f} ms of CPU")
    return 0 if worst <= args.at_most else 1


if __name__ == "__main__":
    sys.exit(main())
