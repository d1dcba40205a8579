"""The built server and `tail`: each record once and in order, for any reader, over restarts of both."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.client import Chat, target
from tests.support.commands import Command, run
from tests.support.process import ServerProcess, clean_environment, python_command
from tests.support.scene import await_true

STOPPED, ENDED, MISTAKE = 0, 1, 2
TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
MODERATOR = """
[[token]]
token = "dev-token"

[[token]]
token = "keeper"
username = "carol"
rooms = { general = "rwm" }
"""


@pytest.fixture
def server(pyz: Path, tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess("--db", str(tmp_path / "chat.db"), "--rate", "0") as server:
        yield server


def say(server: ServerProcess, tmp_path: Path, *texts: str, username: str = "alice") -> None:
    """Have these stored."""
    given = "\n".join(texts)
    done = run(tmp_path, "say", server.ws_url, "--username", username, "--lines", given=given)
    assert done.code == 0, done


def numbers(begin: int, end: int) -> list[str]:
    return [str(number) for number in range(begin, end)]


def follow(server: ServerProcess, tmp_path: Path, *arguments: str) -> Command:
    return Command(tmp_path, "tail", server.ws_url, "--username", "reader", *arguments)


def present(server: ServerProcess, watcher: Chat | None = None, name: str = "reader") -> None:
    """Wait until somebody is in the room."""
    own = watcher or Chat(server.ws_url + target("general", "watcher"))
    while name not in own.welcome["data"]["members"]:
        frame = own.receive()
        if frame["event"] == "joined" and frame["data"]["username"] == name:
            break
    if watcher is None:
        own.close()


def text(line: str) -> str:
    """What a line of JSON says."""
    found = json.loads(line)["data"]["text"]
    assert isinstance(found, str)
    return found


def test_it_begins_now_with_a_line_for_each_message(server: ServerProcess, tmp_path: Path) -> None:
    say(server, tmp_path, "before")
    with follow(server, tmp_path) as tail:
        present(server)
        with closing(Chat(server.ws_url + target("general", "alice"))) as alice:
            alice.say("hello\nworld \x1b[2J\u202e")
            (message,) = alice.messages(2)[1:]
            alice.send("edit", "e1", id=message["id"], text="hello!")
            alice.send("delete", "d1", id=message["id"])
            while alice.receive()["event"] != "deleted":
                pass
        assert re.fullmatch(TIME + r" alice: hello\\nworld \\x1b\[2J\\u202e\n", tail.line())
        assert re.fullmatch(TIME + r" \* alice edited 2: hello!\n", tail.line())
        assert re.fullmatch(TIME + r" \* alice deleted 2\n", tail.line())
        tail.process.terminate()
        assert tail.end() == (STOPPED, "", "")


def test_json_is_a_frame_a_line_in_ascii(server: ServerProcess, tmp_path: Path) -> None:
    said = "h\u00e9llo \x1b[2J\u202e \x7f\x9b \U0001f600"
    with follow(server, tmp_path, "--json") as tail:
        present(server)
        with closing(Chat(server.ws_url + target("general", "alice"))) as alice:
            alice.say(said)
        line = tail.line()
    assert line.isascii()
    assert line.rstrip("\n").isprintable()
    frame = json.loads(line)
    assert list(frame)[:2] == ["event", "data"]
    assert (frame["data"], frame["id"], frame["room"]) == ({"username": "alice", "text": said}, 1, "general")


def test_all_is_everything_that_is_kept(server: ServerProcess, tmp_path: Path) -> None:
    say(server, tmp_path, *numbers(0, 1200))
    with follow(server, tmp_path, "--all", "--json") as tail:
        assert [text(tail.line()) for _ in range(1200)] == numbers(0, 1200)
        say(server, tmp_path, "and on")
        assert text(tail.line()) == "and on"


@pytest.mark.parametrize("missed", [3, 700])
def test_it_begins_behind_a_number(server: ServerProcess, tmp_path: Path, missed: int) -> None:
    say(server, tmp_path, *numbers(0, 10 + missed))
    with closing(Chat(server.ws_url + target("general", "alice"))) as alice:
        epoch = alice.welcome["epoch"]
    with follow(server, tmp_path, "--since", "10", "--epoch", epoch, "--json") as tail:
        lines = [tail.line() for _ in range(missed + (missed > 500))]
    frames = [json.loads(line) for line in lines]
    if missed > 500:  # more than a resume brings
        gap = frames.pop(0)
        assert gap["event"] == "gap"
        assert (gap["data"]["after"], gap["data"]["filled"]) == (10, True)
    assert [frame["data"]["text"] for frame in frames] == numbers(10, 10 + missed)


def test_it_goes_on_where_it_was_last_time(server: ServerProcess, tmp_path: Path) -> None:
    state = str(tmp_path / "state")
    with follow(server, tmp_path, "--state", state, "--json") as tail:
        await_true(lambda: os.path.exists(state), "the place is kept before anything is said")
        tail.process.send_signal(signal.SIGKILL)
    say(server, tmp_path, *numbers(0, 5))
    for begin in (0, 5):
        with follow(server, tmp_path, "--state", state, "--json") as tail:
            assert [text(tail.line()) for _ in range(5)] == numbers(begin, begin + 5)
            say(server, tmp_path, *numbers(begin + 5, begin + 10)) if not begin else None
            tail.process.terminate()
            done = tail.end()
        seen = [text(line) for line in done.out.splitlines()]
        if begin == 0 and seen:  # it was quick enough to write some more
            begin_again = 5 + len(seen)
            with follow(server, tmp_path, "--state", state, "--json") as tail:
                assert [text(tail.line()) for _ in range(10 - begin_again)] == numbers(begin_again, 10)
            break


def test_a_state_belongs_to_one_room_and_one_command(server: ServerProcess, tmp_path: Path) -> None:
    state = str(tmp_path / "state")
    with follow(server, tmp_path, "--state", state):
        await_true(lambda: os.path.exists(state), "it is at work")
        other = run(tmp_path, "tail", server.ws_url, "--state", state)
        assert other.code == MISTAKE
        assert "in use by another tail" in other.err
        (tmp_path / "link").symlink_to(state)
        other = run(tmp_path, "tail", server.ws_url, "--state", str(tmp_path / "link"))
        assert "in use by another tail" in other.err
    other = run(tmp_path, "tail", server.ws_url, "--state", state, "--room", "ops")
    assert other.code == MISTAKE
    assert "another room" in other.err
    Path(state).write_text("nonsense")
    other = run(tmp_path, "tail", server.ws_url, "--state", state)
    assert other.code == MISTAKE
    assert "wasn't written by tail" in other.err


def test_restarts_of_the_server_leave_no_gap_and_no_repeat(pyz: Path, tmp_path: Path) -> None:
    options = ("--db", str(tmp_path / "chat.db"), "--rate", "0")
    with ExitStack() as stack:
        server = stack.enter_context(ServerProcess(*options))
        tail = stack.enter_context(follow(server, tmp_path, "--json"))
        present(server)
        for number in range(3):
            say(server, tmp_path, *numbers(number * 5, number * 5 + 5))
            server.signal(signal.SIGKILL if number % 2 else signal.SIGTERM)
            server.wait()
            server = stack.enter_context(ServerProcess(*options, "--port", str(server.port)))
        say(server, tmp_path, "the end")
        assert [text(tail.line()) for _ in range(16)] == [*numbers(0, 15), "the end"]


def test_another_history_is_told(pyz: Path, tmp_path: Path) -> None:
    with ServerProcess("--db", "none") as server:
        port = server.port
        tail = follow(server, tmp_path, "--json")
        present(server)
        say(server, tmp_path, "old")
        assert text(tail.line()) == "old"
    with tail, ServerProcess("--db", "none", "--port", str(port)) as server:
        replaced = json.loads(tail.line())
        assert (replaced["event"], replaced["room"]) == ("replaced", "general")
        say(server, tmp_path, "new")
        assert text(tail.line()) == "new"


def test_a_slow_pipe_loses_nothing(server: ServerProcess, tmp_path: Path) -> None:
    """The reader takes nothing until the server has given the connection up; then it gets all."""
    body = "x" * 3000
    options = ("--db", str(tmp_path / "slow.db"), "--rate", "0", "--send-timeout", "500ms")
    with ServerProcess(*options) as slow, follow(slow, tmp_path, "--json") as tail:
        present(slow)
        say(slow, tmp_path, *(f"{number} {body}" for number in range(2500)))
        await_true(lambda: "stalled" in slow.stderr, lambda: f"it was given up: {slow.stderr}")
        frames: list[dict[str, Any]] = []
        while len(frames) < 2500:
            frame = json.loads(tail.line())
            if frame["event"] == "message":
                frames.append(frame)
    assert [frame["data"]["text"].split()[0] for frame in frames] == numbers(0, 2500)


def test_a_closed_pipe_ends_it(server: ServerProcess, tmp_path: Path) -> None:
    with follow(server, tmp_path) as tail:
        present(server)
        assert tail.process.stdout is not None
        tail.process.stdout.close()
        assert tail.process.wait(30) == STOPPED
        assert tail.process.stderr is not None
        assert tail.process.stderr.read() == b""


def test_a_pipe_that_it_could_read_itself_is_written_to(server: ServerProcess, tmp_path: Path) -> None:
    """`exec 3<>PIPE; tail … >&3` in a shell: the end for both becomes readable by what is written."""
    os.mkfifo(tmp_path / "pipe")
    say(server, tmp_path, *numbers(0, 3))
    ours = os.open(tmp_path / "pipe", os.O_RDWR)
    with subprocess.Popen(
        [*python_command(), "tail", server.ws_url, "--all"],
        env=clean_environment({"CHATROOM_TOKEN": "dev-token"}), stdin=subprocess.DEVNULL, stdout=ours,
    ) as tail, os.fdopen(ours, "rb") as pipe:  # fmt: skip
        for number in numbers(0, 3):
            assert pipe.readline().endswith(f": {number}\n".encode())
        say(server, tmp_path, "more")
        assert pipe.readline().endswith(b": more\n")
        assert tail.poll() is None
        tail.terminate()


def test_a_full_disk_is_told(server: ServerProcess, tmp_path: Path) -> None:
    say(server, tmp_path, "hello")
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*python_command(), "tail", server.ws_url, "--all"],
            env=clean_environment({"CHATROOM_TOKEN": "dev-token"}), stdout=full, stderr=subprocess.PIPE,
            check=False, timeout=60, text=True,
        )  # fmt: skip
    assert done.returncode == MISTAKE
    assert done.stderr == "chatroom: standard output can't be written (No space left on device)\n"


@pytest.mark.parametrize("action", ["kick", "ban"])
def test_who_is_sent_away_ends(pyz: Path, tmp_path: Path, action: str) -> None:
    (tmp_path / "tokens.toml").write_text(MODERATOR)
    with ServerProcess("--db", "none", "--tokens", "tokens.toml", cwd=tmp_path) as server:
        carol = Chat(server.ws_url + target("general", "carol", "keeper"))
        with closing(carol), follow(server, tmp_path) as tail:
            present(server, carol)
            carol.send("moderate", "m1", action=action, username="reader", reason="enough \x1b[31m")
            done = tail.end()
        assert done.code == ENDED
        assert re.search(r"\* carol (kicked|banned) reader: enough \\x1b\[31m\n$", done.out)
        assert "enough" in done.err
        assert "\x1b" not in done.err
        if action == "ban":
            again = run(tmp_path, "tail", server.ws_url, "--username", "reader")
            assert again == (ENDED, "", "chatroom: Banned from this room (403)\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--since", "3"), "--since and --epoch belong together"),
        (("--epoch", "abc"), "--since and --epoch belong together"),
        (("--since", "3", "--epoch", "abc", "--all"), "exclude each other"),
        (("--since", "-1", "--epoch", "abc"), "--since"),
        (("--state", "/nowhere/state"), "can't be written"),
        (("--ca", "/nowhere/ca.pem"), "--ca"),
    ],
)
def test_a_mistake_is_one_line(pyz: Path, tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    done = run(tmp_path, "tail", "ws://127.0.0.1:1", *arguments)
    assert (done.code, done.out) == (MISTAKE, "")
    assert said in done.err
    assert done.err.count("\n") == 1
