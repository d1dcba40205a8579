"""An operator's day, as docs/operations.md tells it: the commands that stand there, run on the built file."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest

from benchmarks.__main__ import PROGRAMS
from chatroom.engines.sqlite.schema import VERSION
from chatroom.server import RING_BYTES
from tests.support.client import Chat, target
from tests.support.pages import ROOT, blocks, rows, section, words
from tests.support.process import ServerProcess, clean_environment, python_command
from tests.support.scene import await_true

PAGE = (ROOT / "docs" / "operations.md").read_text("utf-8")


def shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command of the page; `chat.pyz` and its Python are those under test."""
    bin_folder = folder / "bin"
    bin_folder.mkdir(exist_ok=True)
    run = bin_folder / "chat.pyz"
    python, file = python_command()
    run.write_text(f'#!/bin/sh\nexec "{python}" "{file}" "$@"\n')
    run.chmod(0o755)
    command = command.replace("/usr/local/bin/chat.pyz", str(run)).replace("/var/lib/chatroom", str(folder))
    return subprocess.run(
        ["sh", "-c", command], cwd=folder, capture_output=True, text=True, timeout=60, check=False,
        env=clean_environment(),
    )  # fmt: skip


def say_something(server: ServerProcess, *texts: str) -> None:
    alice = Chat(server.ws_url + target("general", "alice"))
    for text in texts:
        alice.say(text)
        while alice.messages(1)[0]["data"]["text"] != text:
            pass  # what was said before comes first
    alice.close()


@pytest.fixture
def spoken(pyz: Path, tmp_path: Path) -> Path:
    """A folder with a database in which something was said."""
    with ServerProcess(cwd=tmp_path) as server:
        say_something(server, "hello", "how are you?")
        assert server.stop() == 0
    return tmp_path


# Backups


def test_the_backup_of_every_night(spoken: Path) -> None:
    (line,) = blocks(PAGE, "cron")
    *variables, line = line.splitlines()
    assert variables == ["HOME=/var/lib/chatroom", "SHIV_ROOT=/var/cache/chatroom"]
    command = " ".join(line.split(" ")[6:]).replace("\\%", "%")
    old = spoken / "backups" / "2020-01-01.db"
    old.parent.mkdir()
    old.write_bytes(b"an old one")
    os.utime(old, (0, 0))
    done = shell(command, spoken)
    assert done.returncode == 0, done.stderr
    (made,) = (spoken / "backups").iterdir()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d\.db", made.name)
    # If there is one already, nothing is replaced and nothing removed.
    old.write_bytes(b"an old one")
    os.utime(old, (0, 0))
    assert shell(command, spoken).returncode == 2
    assert old.exists()


def test_a_backup_can_be_checked(spoken: Path) -> None:
    (check, trial) = blocks(section(PAGE, "Checking a backup"), "sh")
    (spoken / "backups").mkdir()
    made = shell("/usr/local/bin/chat.pyz backup --db chat.db backups/monday.db", spoken)
    assert made.returncode == 0, made.stderr
    backup = spoken / "backups" / "monday.db"
    before = backup.read_bytes()
    assert shell(check, spoken).stdout == "ok\n"
    assert backup.read_bytes() == before
    assert [path.name for path in backup.parent.iterdir()] == ["monday.db"]
    copying, serving = trial.splitlines()
    assert shell(copying, spoken).returncode == 0
    arguments = serving.replace("--port 3999", "--port 0").split()[1:]
    with ServerProcess(*arguments, cwd=spoken) as server:
        bob = Chat(server.ws_url + target("general", "bob"))
        assert bob.texts(2) == ["hello", "how are you?"]
    assert backup.read_bytes() == before
    damaged = bytearray(before)
    damaged[-4096:] = os.urandom(4096)
    backup.write_bytes(damaged)
    assert shell(check, spoken).stdout != "ok\n"


# Upgrade and rollback


def test_a_file_is_replaced_under_a_running_server(spoken: Path, pyz: Path) -> None:
    """The page's commands, from the copy to the signal, and clients of before go on until then."""
    (commands,) = blocks(section(PAGE, "Upgrade and rollback"), "sh")
    shutil.copy(pyz, spoken / "chat.pyz")
    (spoken / "Downloads").mkdir()
    shutil.copy(pyz, spoken / "Downloads" / "chat.pyz")
    python = python_command()[0]
    with ServerProcess(command=[python, str(spoken / "chat.pyz")], cwd=spoken) as server:
        commands = commands.replace("~", str(spoken)).replace("PID", str(server.pid))
        *replacing, stopping = commands.replace("./chat.pyz", f"{python} ./chat.pyz").splitlines()
        done = shell(" && ".join(replacing), spoken)
        assert done.returncode == 0, done.stderr
        say_something(server, "still here")
        assert shell(stopping, spoken).returncode == 0
        assert server.wait() == 0
    with ServerProcess(command=[python, str(spoken / "chat.pyz")], cwd=spoken) as server:
        bob = Chat(server.ws_url + target("general", "bob"))
        assert bob.texts(3)[-1] == "still here"
    assert (spoken / "chat.pyz.old").exists()
    assert (spoken / "before-upgrade.db").exists()


def test_an_older_version_refuses_a_newer_form_and_changes_nothing(spoken: Path) -> None:
    with sqlite3.connect(spoken / "chat.db") as database:
        database.execute(f"PRAGMA user_version = {VERSION + 1}")
    database.close()
    before = (spoken / "chat.db").read_bytes()
    done = shell("/usr/local/bin/chat.pyz --port 0", spoken)
    assert done.returncode == 2
    assert "newer version" in done.stderr
    assert (spoken / "chat.db").read_bytes() == before
    assert f"The form of this version is {VERSION};" in " ".join(PAGE.split())


# Log files


@pytest.mark.parametrize(("redirection", "hole"), [(">>", False), (">", True)])
def test_a_log_that_is_copied_and_cut(redirection: str, hole: bool, pyz: Path, tmp_path: Path) -> None:
    """What logrotate does with `copytruncate`; a file that isn't opened for appending gets a hole."""
    log = tmp_path / "chat.log"
    python, file = python_command()
    command = f'exec "{python}" "{file}" --port 0 --db none --log-format json 2{redirection} chat.log'
    with ServerProcess(command=["sh", "-c", command, "sh"], cwd=tmp_path) as server:
        say_something(server, "before")
        await_true(lambda: "LEAVE" in log.read_text(), "the end of it is logged")
        shutil.copy(log, tmp_path / "chat.log.1")
        os.truncate(log, 0)
        server.signal(1)
        say_something(server, "after")
        await_true(lambda: b"LEAVE" in log.read_bytes(), "the end of it is logged")
        written = log.read_bytes()
        assert (b"\0" in written) == hole
        if not hole:
            events = [json.loads(line)["event"] for line in written.splitlines()]
            assert [event for event in events if event != "reloaded"][-2:] == ["JOIN", "LEAVE"]
            assert '"start"' in (tmp_path / "chat.log.1").read_text()
    (shown,) = blocks(PAGE, "logrotate")
    assert "copytruncate" in shown
    assert "2>> /var/log/chatroom/chat.log" in PAGE


# Where everything is, and how much


def test_the_tables_of_the_database_are_named(spoken: Path) -> None:
    where = rows(PAGE, "Where everything is")[0][1]
    with sqlite3.connect(spoken / "chat.db") as database:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    database.close()
    assert tables <= set(words(where))


def test_the_sizing_can_be_measured_again() -> None:
    text = section(PAGE, "Sizing")
    assert "python -m benchmarks sizing" in text
    assert "sizing" in PROGRAMS
    assert f"up to {RING_BYTES >> 20} MiB of recent messages" in text
