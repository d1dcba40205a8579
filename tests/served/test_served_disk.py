"""The built server and its disk: nothing is shown that isn't synced, whatever the disk does."""

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.client import Chat, target
from tests.support.disk import Disk
from tests.support.process import ServerProcess, StartFailed, clean_environment, python_command
from tests.support.raw import get
from tests.support.scene import await_true, snapshot

MARKED = 200
pytestmark = pytest.mark.usefixtures("pyz")


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path)


@contextmanager
def served(disk: Disk, tmp_path: Path, *options: str) -> Iterator[ServerProcess]:
    with ServerProcess(*options, env=disk.environment, cwd=tmp_path) as server:
        yield server


def enter(server: ServerProcess, username: str, room: str = "general", **more: str | int) -> Chat:
    return Chat(server.ws_url + target(room, username, **more))


def reasons(server: ServerProcess) -> list[str]:
    """What readyz says is wrong."""
    answer = get(server.port, "/readyz")
    found = json.loads(answer.text)
    assert found["ready"] == (answer.status == 200)
    return found.get("reasons", [])


def wait_ready(server: ServerProcess) -> None:
    begin = time.monotonic()
    while reasons(server):
        assert time.monotonic() - begin < 20
        time.sleep(0.05)


def test_no_echo_leaves_before_the_sync_of_its_commit_has_returned(disk: Disk, tmp_path: Path) -> None:
    """Power loss, which a kill can't show."""
    with served(disk, tmp_path, "--rate", "0") as server:
        alice, bob = enter(server, "alice"), enter(server, "bob")
        with disk.traced() as trace:
            for start in range(0, MARKED, 8):
                for number in range(start, start + 8):
                    alice.say(f"<<{number}>>", f"cid-{number}" if number % 2 else None)
                alice.messages(8)
            bob.messages(MARKED)
            lines = trace.read_text().splitlines()
        alice.close()
        bob.close()
    written, pending, synced, sent = set[str](), set[str](), set[str](), set[str]()
    for line in lines:
        what, _, number = line.partition(" ")
        match what:
            case "write":
                written.add(number)
            case "sync":
                pending = written.copy()
            case "synced":
                synced |= pending
            case "send":
                assert number in synced, f"message {number} was sent before it was synced"
                sent.add(number)
    assert sent == {str(number) for number in range(MARKED)}


def test_a_sync_that_stalls_holds_up_echoes_and_nothing_else(disk: Disk, tmp_path: Path) -> None:
    with served(disk, tmp_path, "--ping-interval", "100ms", "--ping-timeout", "500ms") as server:
        alice, bob = enter(server, "alice"), enter(server, "bob")
        alice.expect("joined")
        alice.say("before")
        alice.expect("message", text="before")
        bob.expect("message", text="before")
        with disk.stalled():
            alice.say("held", "c1")
            begin = time.monotonic()
            while time.monotonic() - begin < 3:  # far beyond the patience of the keepalive
                assert bob.settle() == []
                bob.socket.ping().wait(5)
                time.sleep(0.1)
            assert reasons(server) == ["a commit is waiting"]
            told = snapshot(server)
            assert (told["chatroom_ready"], told['chatroom_not_ready{reason="commit_waiting"}']) == (0, 1)
        assert alice.messages(1)[0]["cid"] == "c1"
        assert bob.messages(1)[0]["cid"] == "c1"
        wait_ready(server)
        alice.close()
        bob.close()
        assert server.stop() == 0


def test_a_stop_does_not_wait_for_a_sync_that_never_returns(disk: Disk, tmp_path: Path) -> None:
    with served(disk, tmp_path) as server:
        alice = enter(server, "alice")
        with disk.stalled():
            alice.say("held")
            alice.settle()
            begin = time.monotonic()
            code = server.stop()
            assert time.monotonic() - begin < 10
            assert code == 1
        assert "not_settled" in server.stderr


@pytest.mark.parametrize("after", [False, True])
def test_a_sync_that_fails_shows_nothing_and_the_same_cid_is_stored_once(
    disk: Disk, tmp_path: Path, after: bool
) -> None:
    with served(disk, tmp_path) as server:
        alice, bob = enter(server, "alice"), enter(server, "bob")
        alice.expect("joined")
        alice.say("one")
        alice.expect("message", text="one")
        with disk.failing(after=after):
            alice.say("two", "c2")
            answer = alice.expect("error")
            assert (answer["code"], answer["retry"], answer["cid"]) == ("unavailable", True, "c2")
            alice.say("lost")
            assert alice.expect("error")["code"] == "unavailable"
            (reason,) = reasons(server)
            assert reason.startswith("the disk fails (SQLITE_IOERR")
            told = snapshot(server)
            assert (told["chatroom_ready"], told['chatroom_not_ready{reason="store"}']) == (0, 1)
            assert told["chatroom_unavailable_total"] == 2
        wait_ready(server)
        alice.say("two", "c2")
        assert alice.expect("message", text="two")["id"] == 2
        assert [frame["id"] for frame in bob.messages(2)] == [1, 2]
        page = bob.ask("history")["data"]
        assert [item["text"] for item in page["messages"]] == ["one", "two"]
        alice.close()
        bob.close()
        assert server.stop() == 0


def test_a_trim_that_was_done_and_reported_failed_lets_people_in_all_the_same(
    disk: Disk, tmp_path: Path
) -> None:
    with served(disk, tmp_path) as server:
        alice = enter(server, "alice")
        for number in range(1, 6):
            alice.say(str(number))
        alice.messages(5)
        alice.close()
        assert server.stop() == 0
    with served(disk, tmp_path, "--retain", "5") as server:
        alice = enter(server, "alice")
        alice.messages(5)
        alice.say("first of this run")  # which writes the head of the write-ahead log
        alice.messages(1)
        await_true(lambda: alice.ask("history")["data"]["messages"][0]["id"] == 2, "it is trimmed")
        with disk.failing(after=True, spare=1):
            alice.say("the append succeeds, the trimming after it doesn't")
            alice.messages(1)
            await_true(lambda: "log_failed" in server.stderr, "trimming has failed")
        wait_ready(server)
        for name in ("bob", "carol"):
            newcomer = enter(server, name)
            assert newcomer.welcome["replay"] == 5
            assert [frame["id"] for frame in newcomer.messages(5)] == [3, 4, 5, 6, 7]
            newcomer.close()
        resumed = enter(server, "dave", since=1, epoch=alice.welcome["epoch"])
        assert (resumed.welcome["recovered"], resumed.welcome["replay"]) == (False, 5)
        resumed.messages(5)
        resumed.close()
        alice.close()
        assert server.stop() == 0


def test_a_full_disk_shows_nothing_and_leaves_no_hole(disk: Disk, tmp_path: Path) -> None:
    with served(disk, tmp_path, "--rate", "0") as server:
        alice = enter(server, "alice")
        alice.say("one")
        alice.expect("message", text="one")
        with disk.full():
            for number in range(20):
                alice.say("x" * 4000, f"c{number}")
                assert alice.expect("error")["code"] == "unavailable"
            assert reasons(server) == ["the disk is full (SQLITE_FULL)"]
            page = alice.ask("history")["data"]
            assert [item["id"] for item in page["messages"]] == [1]
            newcomer = enter(server, "bob")
            assert newcomer.welcome["last_id"] == 1
            newcomer.close()
        wait_ready(server)
        for number in range(20):
            alice.say("x" * 4000, f"c{number}")
        assert [frame["id"] for frame in alice.messages(20)] == list(range(2, 22))
        alice.close()
        assert server.stop() == 0
        assert "log_recovered" in server.stderr


@pytest.mark.usefixtures("measured")
@pytest.mark.parametrize("umask", ["0000", "0022", "0077"])
def test_the_files_are_the_server_s_alone_whatever_the_umask(tmp_path: Path, umask: str) -> None:
    command = ["sh", "-c", f'umask {umask}; exec "$@"', "sh", *python_command()]
    (tmp_path / "home").mkdir()
    with ServerProcess(command=command, cwd=tmp_path / "home") as server:
        alice = enter(server, "alice")
        alice.say("hi")
        alice.expect("message", text="hi")
        backup = [*command, "backup", "copy.db"]
        subprocess.run(backup, cwd=tmp_path / "home", env=clean_environment(), check=True)
        modes = {each.name: each.stat().st_mode & 0o7777 for each in (tmp_path / "home").iterdir()}
        names = ("chat.db", "chat.db-lock", "chat.db-shm", "chat.db-wal", "copy.db")
        assert modes == dict.fromkeys(names, 0o600)
        alice.close()
        assert server.stop() == 0


def test_a_second_server_is_refused_and_the_first_is_unharmed(tmp_path: Path) -> None:
    with ServerProcess(cwd=tmp_path) as first:
        alice = enter(first, "alice")
        with pytest.raises(StartFailed, match=r"exit code 2(?s:.)*another server uses"):
            ServerProcess(cwd=tmp_path).start()
        alice.say("hi")
        alice.expect("message", text="hi")
        alice.close()
        assert first.stop() == 0


def test_a_refused_file_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "chat.db").write_bytes(b"garbage" * 100)
    with pytest.raises(StartFailed) as caught:
        ServerProcess(cwd=tmp_path).start()
    said = str(caught.value).partition("stderr: ")[2].splitlines()
    assert "exit code 2" in str(caught.value)
    assert [line for line in said if line.startswith("chatroom: ")] == [said[-1]]
    assert "is no database: choose another file by --db" in said[-1]


def test_what_was_said_is_there_after_a_restart(tmp_path: Path) -> None:
    with ServerProcess(cwd=tmp_path) as server:
        alice = enter(server, "alice")
        alice.say("hi", "c1")
        sent = alice.messages(1)[0]
        alice.close()
        assert server.stop() == 0
    with ServerProcess(cwd=tmp_path) as server:
        again = enter(server, "alice", since=0, epoch=alice.welcome["epoch"])
        assert again.welcome["recovered"] is True
        assert again.messages(1) == [sent]
        again.say("hi", "c1")
        assert again.expect("ack")["data"] == {"id": 1, "duplicate": True}
        again.close()
    with ServerProcess("--new-epoch", cwd=tmp_path) as server:
        anew = enter(server, "alice", since=1, epoch=alice.welcome["epoch"])
        assert anew.welcome["recovered"] is False
        assert anew.welcome["epoch"] != alice.welcome["epoch"]
        anew.close()
