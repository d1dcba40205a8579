"""The place of a tail, as a file: whole at any moment, of one room, for one command."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chatroom.client.cursor import Position
from chatroom.client.positionfile import PositionFile
from chatroom.core.errors import StartError

PLACE = '{"tail":1,"url":"wss://h","room":"ops","epoch":"e","id":7}\n'
POSITION = Position("e", 7)


def file_of(path: Path, *, url: str = "wss://h", room: str = "ops") -> PositionFile:
    """Locked by this test until its end: each one has a path of its own."""
    return PositionFile(str(path), url, room)


def test_without_a_last_time_there_is_no_place(tmp_path: Path) -> None:
    found = file_of(tmp_path / "state")
    assert found.read() is None
    assert not (tmp_path / "state").exists()


def test_the_place_is_as_it_was_saved(tmp_path: Path) -> None:
    found = file_of(tmp_path / "state")
    found.save(POSITION)
    assert (tmp_path / "state").read_text() == PLACE
    assert found.read() == POSITION
    found.save(Position("f\n\u2028\U0001f600", 0))
    assert found.read() == Position("f\n\u2028\U0001f600", 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state", "state.lock"]


def test_a_place_that_has_not_changed_is_not_written(tmp_path: Path) -> None:
    (tmp_path / "state").write_text(PLACE)
    found = file_of(tmp_path / "state")
    assert found.read() == POSITION
    (tmp_path / "state").unlink()
    found.save(POSITION)
    assert not (tmp_path / "state").exists()
    found.save(Position("e", 8))
    assert (tmp_path / "state").exists()


def test_it_stays_where_it_was_if_the_command_goes_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    found = PositionFile("state", "wss://h", "ops")
    monkeypatch.chdir(tmp_path / "elsewhere")
    found.save(POSITION)
    assert (tmp_path / "state").exists()


def test_a_working_directory_that_is_gone_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir("gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(StartError, match=r"^--state st can't be written \(No such file or directory\)"):
        PositionFile("st", "ws://h", "ops")


def test_one_command_at_a_time_uses_it(tmp_path: Path) -> None:
    script = (
        "import sys, time; from chatroom.client.positionfile import PositionFile; "
        "found = PositionFile(sys.argv[1], 'wss://h', 'ops'); print(flush=True); time.sleep(60)"
    )
    path = tmp_path / "state"
    with subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(StartError, match=r"is in use by another tail: give each one a file of its own$"):
            file_of(path)
        process.kill()
    file_of(path)


@pytest.mark.parametrize(("url", "room"), [("wss://other", "ops"), ("wss://h", "general"), ("ws://h", "ops")])
def test_it_belongs_to_one_room_of_one_server(tmp_path: Path, url: str, room: str) -> None:
    (tmp_path / "state").write_text(PLACE)
    with pytest.raises(StartError, match=r"belongs to another room or server: give each a file of its own$"):
        file_of(tmp_path / "state", url=url, room=room).read()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "\n",
        "notes of mine",
        "[]",
        "null",
        "{}",
        PLACE[:-3],
        PLACE.replace('"tail":1', '"tail":2'),
        PLACE.replace('"tail":1', '"tail":true'),
        PLACE.replace("7", "-7"),
        PLACE.replace("7", "7.0"),
        PLACE.replace("7", "true"),
        PLACE.replace("7", '"7"'),
        PLACE.replace("7", "9" * 5000),
        PLACE.replace("7", str(2**53)),
        PLACE.replace('"e"', "1"),
        PLACE.replace('"e"', '"\\ud800"'),
        "[" * 60_000,
    ],
)
def test_what_tail_has_not_written_is_not_used(tmp_path: Path, content: str) -> None:
    (tmp_path / "state").write_text(content)
    with pytest.raises(StartError, match=r"wasn't written by tail: give another file, or remove it$"):
        file_of(tmp_path / "state").read()
    assert (tmp_path / "state").read_text() == content


def test_what_is_no_text_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "state").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(StartError, match=r"wasn't written by tail"):
        file_of(tmp_path / "state").read()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(st.integers(0, len(PLACE)))
def test_a_file_that_was_cut_is_a_mistake_or_whole(tmp_path: Path, size: int) -> None:
    path = tmp_path / f"state{len(list(tmp_path.iterdir()))}"
    path.write_text(PLACE[:size])
    found = file_of(path)
    try:
        assert found.read() == POSITION
        assert size >= len(PLACE) - 1
    except StartError:
        assert size < len(PLACE) - 1


@pytest.mark.parametrize("kind", ["folder", "pipe", "large"])
def test_what_is_no_such_file_is_told(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "state"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.write_text(" " * 70_000)
    with pytest.raises(StartError) as caught:
        file_of(path).read()
    assert str(caught.value).startswith("--state ")
    assert "\n" not in str(caught.value)


def test_a_link_stays_and_what_it_leads_to_is_the_file(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.symlink_to(tmp_path / "elsewhere")
    found = file_of(path)
    assert found.read() is None
    found.save(POSITION)
    assert path.is_symlink()
    assert (tmp_path / "elsewhere").is_file()


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(
        StartError, match=r"can't be written \(No such file or directory\): give another file$"
    ):
        file_of(tmp_path / "gone" / "state")
    found = file_of(tmp_path / "state")
    (tmp_path / "state").mkdir()
    with pytest.raises(StartError, match=r"can't be written \(Is a directory\): give another file$"):
        found.save(POSITION)


def test_on_a_full_disk_the_last_place_stays(tmp_path: Path) -> None:
    found = file_of(tmp_path / "state")
    found.save(POSITION)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        with pytest.raises(StartError, match=r"can't be written \(File too large\): give another file$"):
            found.save(Position("e", 8))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert found.read() == POSITION
    found.save(Position("e", 9))
    assert found.read() == Position("e", 9)
