"""Two people at terminals, as docs/terminal.md shows them: made by tmux, a real server and the built file.

    .venv/bin/python -m tests.support.captures      writes the pictures into docs/terminal.md

Owns the story and its pictures. Rules:

1. A picture stands between the lines `<!-- picture NAME -->` and `<!-- end -->`: what tmux shows of a window.
2. What differs from run to run is made the same: ports, times, and how long the next try takes.
3. It is waited for what is to be seen, never for time.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from tests.support.process import ROOT, ServerProcess, clean_environment, python_command

PAGE = ROOT / "docs" / "terminal.md"
COLUMNS, ROWS = 76, 16
SECONDS = 20.0
_PICTURE = re.compile(r"<!-- picture (\w+) -->\n.*?<!-- end -->\n", re.DOTALL)
_TIME = re.compile(r"^(\d\d:\d\d:\d\d) (.*)$", re.MULTILINE)
_TRYING = re.compile(r"trying again in \d+ s")
_KEYS = frozenset({"Enter", "Tab"})


class Window:
    """One window of tmux, with a shell in it."""

    def __init__(self, socket: Path, name: str, home: Path) -> None:
        self._tmux = ["tmux", "-S", str(socket), "-f", "/dev/null"]
        self._name = name
        env = clean_environment({
            "LANG": "C.UTF-8", "TZ": "UTC", "HOME": str(home), "CHATROOM_TOKEN": "dev-token",
        })  # fmt: skip
        size = ("-x", str(COLUMNS), "-y", str(ROWS))
        self._run("new-session", "-d", "-s", name, *size, "-c", str(home), "env", "PS1=$ ", "sh", env=env)

    def _run(self, *arguments: str, env: dict[str, str] | None = None) -> str:
        done = subprocess.run([*self._tmux, *arguments], env=env, capture_output=True, text=True, check=True)
        return done.stdout

    def press(self, *keys: str) -> None:
        """Press keys: names as tmux has them, or text."""
        for key in keys:
            self._run("send-keys", "-t", self._name, *([key] if key in _KEYS else ["-l", key]))

    def paste(self, text: str) -> None:
        """Paste a text."""
        self._run("set-buffer", text)
        self._run("paste-buffer", "-p", "-r", "-t", self._name)

    def seen(self, wanted: str, *, last: bool = False) -> str:
        """Wait until a text is to be seen, or is the `last` line. Returns all that is to be seen then."""
        deadline = time.monotonic() + SECONDS
        while True:
            shown = self._run("capture-pane", "-p", "-t", self._name).rstrip()
            if shown.split("\n")[-1] == wanted if last else wanted in shown:
                return shown + "\n"
            assert time.monotonic() < deadline, f"{wanted!r} is not to be seen:\n{shown}"
            time.sleep(0.02)

    def clear(self) -> None:
        """Have nothing to be seen but the shell's prompt."""
        self.seen("$", last=True)
        self.press("clear", "Enter")
        while self.seen("$", last=True) != "$\n":
            pass

    def close(self) -> None:
        """Close the window, and with the last one tmux."""
        self._run("kill-session", "-t", self._name)


def take() -> dict[str, str]:
    """Play the story, and return its pictures by their names."""
    pictures: dict[str, str] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chat-tmux-")))
        database = str(folder / "chat.db")
        server = stack.enter_context(ServerProcess("--db", database))
        (folder / "chat.pyz").write_text(f'#!/bin/sh\nexec {" ".join(python_command())} "$@"\n')
        (folder / "chat.pyz").chmod(0o755)
        windows = []
        for name in ("alice", "bob"):
            window = Window(folder / "tmux", name, folder)
            stack.callback(window.close)
            window.seen("$")
            window.press(f"./chat.pyz join {server.ws_url} --room ops --username {name}", "Enter")
            window.seen("you are in ops")
            windows.append(window)
        alice, bob = windows
        alice.press("good morning", "Enter")
        bob.seen("alice: good morning")
        bob.press("morning! ☕ 早上好", "Enter", "/me starts the coffee machine", "Enter")
        bob.seen("~ bob starts")
        bob.paste("the disk of db1:\n  97 % used\n  3 GB free")
        bob.seen("3 GB free")
        pictures["paste"] = bob.seen("bob, 2 here", last=True)
        bob.press("Enter")
        alice.seen("3 GB free")
        alice.press("@b", "Tab", "I'll have a look")
        pictures["talk"] = bob.seen("bob, 2 here · alice is typing …", last=True)
        alice.press("Enter")
        bob.seen("have a look")
        server.stop()
        alice.seen("Connection refused")
        alice.press("and meanwhile the server restarts", "Enter")
        alice.seen("1 to be sent")
        pictures["lost"] = alice.seen("1 to be sent · no connection (Connection refused), trying")
        stack.enter_context(ServerProcess("--db", database, "--port", str(server.port)))
        bob.seen("connected again")
        bob.seen("alice: and meanwhile")
        alice.seen("alice: and meanwhile")
        alice.press("/quit", "Enter")
        bob.seen("alice has left")
        bob.press("welcome back", "Enter")
        bob.seen("bob: welcome back")
        bob.press("/edit welcome back, alice", "Enter")
        bob.seen("bob edited")
        alice.clear()
        alice.press(f"./chat.pyz join {server.ws_url} --room ops --username alice", "Enter")
        alice.seen("bob edited")
        pictures["new"] = alice.seen("alice, 2 here", last=True)
        alice.press("/quit", "Enter")
        alice.clear()
        alice.press(f"echo done | ./chat.pyz join {server.ws_url} --room jobs --username ci", "Enter")
        alice.seen("ci: done")
        pictures["plain"] = alice.seen("$", last=True)
        return _settled(pictures, server.port)


def _settled(pictures: dict[str, str], port: int) -> dict[str, str]:
    """The pictures without what differs from run to run (rule 2)."""
    times: dict[str, str] = {}

    def at(found: re.Match[str]) -> str:
        seconds = 7 * (1 + list(times).index(found[2])) if found[2] in times else 7 * (1 + len(times))
        times.setdefault(found[2], f"05:{12 + seconds // 60}:{seconds % 60:02}")
        return f"{times[found[2]]} {found[2]}"

    return {
        name: _TRYING.sub("trying again in 3 s", _TIME.sub(at, picture.replace(f":{port}", ":3000")))
        for name, picture in pictures.items()
    }


def write(page: str, pictures: dict[str, str]) -> str:
    """The page with these pictures in it."""

    def put(found: re.Match[str]) -> str:
        return f"<!-- picture {found[1]} -->\n```text\n{pictures[found[1]]}```\n<!-- end -->\n"

    return _PICTURE.sub(put, page)


if __name__ == "__main__":
    if shutil.which("tmux") is None:
        sys.exit("tmux is missing")
    PAGE.write_text(write(PAGE.read_text("utf-8"), take()), "utf-8")
