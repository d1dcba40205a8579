"""The file of an outbox: who may use it, and that what was synced is there after a kill at any moment."""

import os
import resource
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chatroom.client.batches import Batch, Entry, batch_line, entry_line, head_line, lines_of
from chatroom.client.outboxfile import Occupied, OutboxFile, open_outbox
from chatroom.core.errors import StartError

NOW = 1_764_000_000
ROOT = os.geteuid() == 0


def opened(folder: Path, *, room: str = "ops", whose: str = "ci", seconds: float = 0.0) -> OutboxFile:
    return open_outbox(str(folder), "ws://h", room, whose, seconds=seconds)


def batch(*texts: str, name: str = "b") -> Batch:
    return Batch(name, NOW, [Entry(f"{name}-{number}", text) for number, text in enumerate(texts)])


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix == ".jsonl")


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file of this process may become larger, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# The lock


def test_each_place_and_name_has_an_outbox_of_its_own(tmp_path: Path) -> None:
    found = [opened(tmp_path), opened(tmp_path, room="general"), opened(tmp_path, whose="token 1")]
    for number, outbox in enumerate(found):
        outbox.append([batch_line(batch(name=str(number)))], sync=True)
        outbox.close()
    assert len(files(tmp_path)) == 3
    for path in tmp_path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_outbox_that_another_command_has_is_waited_for(tmp_path: Path) -> None:
    first = opened(tmp_path)
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds
        if now[0] > 3:
            first.close()

    def again(seconds: float) -> OutboxFile:
        return open_outbox(
            str(tmp_path), "ws://h", "ops", "ci", seconds=seconds, sleep=sleep, clock=lambda: now[0]
        )

    with pytest.raises(Occupied):
        again(2.0)
    assert 2.0 <= now[0] < 2.1
    again(2.0).close()
    assert 3.0 < now[0] < 3.1


def test_the_lock_ends_with_its_process(tmp_path: Path) -> None:
    script = (
        "import sys, time; from chatroom.client.outboxfile import open_outbox; "
        "open_outbox(sys.argv[1], 'ws://h', 'ops', 'ci', seconds=0); print(flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(Occupied):
            opened(tmp_path)
        process.kill()
    opened(tmp_path, seconds=5).close()


def test_a_folder_that_is_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"^the outbox .* can't be used \(No such file or directory\)$"):
        opened(tmp_path / "gone")


def test_an_outbox_that_cannot_be_locked_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(descriptor: int, how: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.raises(StartError, match=r"can't be locked \(No locks available\)$"):
        opened(tmp_path)


# The file


def test_what_was_written_is_read_by_the_next_command(tmp_path: Path) -> None:
    first = opened(tmp_path)
    assert first.read(NOW) == []
    made = batch("a", "b")
    first.append(lines_of(made), sync=True)
    first.close()
    second = opened(tmp_path)
    assert second.read(NOW) == [made]
    other = batch("c", name="b2")
    second.append(lines_of(other), sync=False)
    assert second.read(NOW) == [made, other]
    second.replace([other])
    assert second.read(NOW) == [other]
    second.append(lines_of(made), sync=True)
    assert second.read(NOW) == [other, made]
    second.replace([])
    assert (second.read(NOW), files(tmp_path)) == ([], [])
    second.replace([])
    second.close()


def test_an_outbox_says_whose_it_is(tmp_path: Path) -> None:
    outbox = opened(tmp_path)
    outbox.append(lines_of(batch("a")), sync=True)
    outbox.replace([batch("a")])
    (file,) = files(tmp_path)
    assert file.read_text().startswith(head_line("ws://h", "ops", "ci"))
    outbox.close()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=4), min_size=1, max_size=3), st.data())
def test_after_a_kill_at_any_byte_what_was_synced_before_is_there_and_more_can_be_added(
    tmp_path: Path, texts: list[str], data: st.DataObject
) -> None:
    """The cut is anywhere behind the first append: a kill leaves any part of what is written last."""
    with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
        first, second, third = batch(*texts, name="b1"), batch(*texts, name="b2"), batch(*texts, name="b3")
        outbox = opened(Path(folder))
        outbox.append(lines_of(first), sync=True)
        (file,) = files(Path(folder))
        synced = file.stat().st_size
        outbox.append(lines_of(second), sync=True)
        outbox.close()
        os.truncate(file, data.draw(st.integers(synced, file.stat().st_size)))
        outbox = opened(Path(folder))
        found = outbox.read(NOW)
        assert found[0] == first
        for each in found[1:]:
            assert each.entries == second.entries[: len(each.entries)]
        outbox.append(lines_of(third), sync=True)
        assert outbox.read(NOW)[0] == first
        assert outbox.read(NOW)[-1] == third
        outbox.close()


def test_a_kill_while_it_is_replaced_leaves_the_old_one(tmp_path: Path) -> None:
    outbox = opened(tmp_path)
    outbox.append(lines_of(batch("a")), sync=True)
    (file,) = files(tmp_path)
    Path(f"{file}.new").write_text('{"outbox":1,"ur')
    assert outbox.read(NOW) == [batch("a")]
    outbox.replace([batch("c")])
    assert outbox.read(NOW) == [batch("c")]
    assert not Path(f"{file}.new").exists()
    outbox.close()


def test_bytes_that_are_no_text_spoil_their_line_only(tmp_path: Path) -> None:
    outbox = opened(tmp_path)
    outbox.append(lines_of(batch("a")), sync=True)
    (file,) = files(tmp_path)
    with file.open("ab") as opened_file:
        opened_file.write(b'{"batch":"b","cid":"x","te\xff\xfe\x00')
    outbox.append(["\n", entry_line(batch(), Entry("c", "more"))], sync=True)
    (found,) = outbox.read(NOW)
    assert [entry.text for entry in found.entries] == ["a", "more"]
    outbox.close()


@pytest.mark.parametrize("room", [0, 1, 50, 100, 150])
def test_a_full_disk_is_told_and_nothing_counts_as_written(tmp_path: Path, room: int) -> None:
    outbox = opened(tmp_path)
    with (
        largest_file(room),
        pytest.raises(StartError, match=r"^the outbox .* can't be used \(File too large\)$"),
    ):
        outbox.append(lines_of(batch("x" * 100, "y" * 100)), sync=True)
    outbox.close()


def test_a_disk_that_is_full_for_a_rewrite_leaves_the_old_one(tmp_path: Path) -> None:
    outbox = opened(tmp_path)
    made = batch("a", "b")
    outbox.append(lines_of(made), sync=True)
    with largest_file(100), pytest.raises(StartError, match=r"can't be used \(File too large\)$"):
        outbox.replace([batch("x" * 100)])
    assert outbox.read(NOW) == [made]
    outbox.close()


def test_a_folder_in_place_of_the_file_is_told(tmp_path: Path) -> None:
    outbox = opened(tmp_path)
    outbox.append(lines_of(batch("a")), sync=True)
    (file,) = files(tmp_path)
    file.unlink()
    file.mkdir()
    with pytest.raises(StartError, match=r"can't be used \(it is no ordinary file\)$"):
        outbox.read(NOW)
    with pytest.raises(StartError, match=r"can't be used \(Is a directory\)$"):
        outbox.replace([batch("a")])
    outbox.close()


def test_a_hundred_thousand_messages_are_written_and_read_in_linear_time(tmp_path: Path) -> None:
    outbox = opened(tmp_path)
    made = batch(*(str(number) for number in range(100_000)))
    outbox.append(lines_of(made), sync=True)
    (found,) = outbox.read(NOW)
    assert len(found.entries) == 100_000
    outbox.replace([found])
    assert outbox.read(NOW) == [found]
    outbox.close()


def open_files() -> Iterator[int]:
    """The inodes of the files that this process has open."""
    for descriptor in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the list's own one, or another thread's
            yield os.stat(f"/proc/self/fd/{descriptor}").st_ino


def test_the_last_step_of_a_replacement_has_nothing_to_free(tmp_path: Path) -> None:
    """So it is short: a kill in it would find it done, and the command not yet ended."""
    for left in ([], [batch("b")]):
        outbox = opened(tmp_path)
        outbox.append(lines_of(batch("a")), sync=True)
        (file,) = files(tmp_path)
        before = file.stat().st_ino
        finish = outbox.prepared(left)
        assert outbox.read(NOW)[0] == batch("a"), "the step is yet to be done"
        finish()
        assert before in set(open_files())
        assert outbox.read(NOW) == left
        outbox.close()
