"""The transcripts of docs/operations.md, played command by command on the built file."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.client import Chat, target
from tests.support.pages import ROOT, blocks, section
from tests.support.process import ServerProcess, clean_environment, python_command

PAGE = (ROOT / "docs" / "operations.md").read_text("utf-8")


def steady(text: str) -> str:
    """The text without what differs from run to run: times and epochs."""
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ", "TIME", text)
    return re.sub(r'"ts":\d+', '"ts":T', re.sub(r'"epoch":"[\w-]+"', '"epoch":"E"', text))


def play(heading: str, folder: Path, **environ: str) -> None:
    """Type each command of the transcripts under a heading, and see what stands there."""
    bin_folder = folder / "bin"
    bin_folder.mkdir()
    run = bin_folder / "chat.pyz"
    python, file = python_command()
    run.write_text(f'#!/bin/sh\nexec "{python}" "{file}" "$@"\n')
    run.chmod(0o755)
    commands = [
        each.partition("\n")
        for block in blocks(section(PAGE, heading), "console")
        for each in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]
    ]
    assert commands
    environ = clean_environment(environ)
    for command, _, expected in commands:
        if command.startswith("export "):
            name, _, value = command.removeprefix("export ").partition("=")
            environ[name] = value.replace("/run/chatroom/", "")
            continue
        done = subprocess.run(
            ["sh", "-c", command.replace("./chat.pyz", "bin/chat.pyz")], cwd=folder, env=environ,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert steady(done.stdout) == steady(expected), command


@pytest.fixture
def talked(pyz: Path, tmp_path: Path) -> Path:
    """A folder with the database of a room in which something was said, edited and deleted."""
    with ServerProcess(cwd=tmp_path) as server:
        alice, bob = (Chat(server.ws_url + target("general", name)) for name in ("alice", "bob"))
        for chat, event, data in (
            (alice, "message", {"text": "hello"}),
            (bob, "message", {"text": "hi"}),
            (alice, "edit", {"id": 1, "text": "hello!"}),
            (bob, "delete", {"id": 2}),
        ):
            chat.send(event, **data)
            chat.settle()
        alice.close()
        bob.close()
        assert server.stop() == 0
    return tmp_path


def test_a_room_goes_out_and_comes_in(talked: Path) -> None:
    play("Export and import", talked)


@pytest.fixture
def advertised(pyz: Path, tmp_path: Path) -> Iterator[Path]:
    """A folder with a running server, and a room in which mallory and alice are."""
    with ServerProcess("--admin-socket", "admin.sock", cwd=tmp_path) as server:
        alice, mallory = (Chat(server.ws_url + target("general", name)) for name in ("alice", "mallory"))
        for chat, text in ((alice, "hello"), (mallory, "buy my things"), (mallory, "cheap!")):
            chat.say(text)
            chat.settle()
        yield tmp_path
        alice.close()
        mallory.close()


def test_an_operator_looks_after_rooms(advertised: Path) -> None:
    play("Looking after rooms", advertised)


def test_what_one_person_wrote_is_handed_over_and_erased(advertised: Path) -> None:
    if shutil.which("jq") is None:
        pytest.skip("there is no jq here")
    play("Personal data", advertised, CHATROOM_ADMIN_SOCKET="admin.sock")
    with ServerProcess("--db", "new.db", cwd=advertised) as server:
        chat = Chat(server.ws_url + target("general", "bob"))
        messages = chat.messages(3)
        assert [each["data"]["username"] for each in messages] == ["alice", "gone", "gone"]
        assert [each["data"]["text"] for each in messages] == ["hello", "", ""]
        chat.close()
    for left in (b"mallory", b"cheap!"):
        assert left not in (advertised / "new.db").read_bytes()
