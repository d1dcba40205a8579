"""A writer whose descriptor is full, broken, torn or gone never holds up whoever writes."""

import os
import threading
from collections.abc import Iterator

import pytest

from chatroom.logs import LineWriter

PATIENCE = 10.0


def report(count: int) -> bytes:
    return b"lost %d\n" % count


class Pipe:
    """A pipe with a writer on it, which can be filled to the brim."""

    def __init__(self, budget: int = 1000) -> None:
        self.read_end, self.write_end = os.pipe()
        self.writer = LineWriter(self.write_end, report, budget=budget)

    def fill(self) -> int:
        os.set_blocking(self.write_end, False)
        size = 0
        try:
            while True:
                size += os.write(self.write_end, b"x" * 4096)
        except BlockingIOError:
            os.set_blocking(self.write_end, True)
            return size

    def read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            data += os.read(self.read_end, size - len(data))
        return data

    def close(self) -> None:
        os.close(self.read_end)
        self.writer.close(PATIENCE)
        os.close(self.write_end)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


def test_lines_come_out_in_order(pipe: Pipe) -> None:
    lines = [b"line %d\n" % number for number in range(50)]
    for line in lines:
        pipe.writer.put(line)
    assert pipe.read(len(b"".join(lines))) == b"".join(lines)
    assert pipe.writer.dropped == 0


def test_flush_waits_for_what_was_put(pipe: Pipe) -> None:
    pipe.writer.put(b"one\n")
    assert pipe.writer.flush(PATIENCE)
    os.set_blocking(pipe.read_end, False)
    assert os.read(pipe.read_end, 100) == b"one\n"
    assert pipe.writer.flush(PATIENCE)


def test_close_writes_what_waits() -> None:
    pipe = Pipe()
    pipe.writer.put(b"one\n")
    pipe.writer.put(b"two\n")
    pipe.writer.close(PATIENCE)
    assert pipe.read(8) == b"one\ntwo\n"
    pipe.close()


def test_a_storm_larger_than_one_write_comes_out_whole() -> None:
    pipe = Pipe(budget=10**6)
    line = b"y" * 999 + b"\n"
    reader = threading.Thread(target=lambda: got.append(pipe.read(300 * 1000)))
    got: list[bytes] = []
    reader.start()
    for _ in range(300):
        pipe.writer.put(line)
    reader.join(PATIENCE)
    assert got == [line * 300]
    pipe.close()


def test_a_full_pipe_drops_past_the_budget_and_tells_when_it_flows_again(pipe: Pipe) -> None:
    size = pipe.fill()
    line = b"z" * 99 + b"\n"
    for _ in range(15):
        pipe.writer.put(line)  # returns although nobody reads
    assert not pipe.writer.flush(0.01)
    assert pipe.writer.dropped == 5
    pipe.read(size)
    assert pipe.read(1000) == line * 10
    assert pipe.writer.flush(PATIENCE)  # what has gone out is only then taken off the budget
    pipe.writer.put(b"again\n")
    assert sorted(pipe.read(len(b"again\nlost 5\n")).splitlines()) == [b"again", b"lost 5"]


def test_close_gives_up_on_a_pipe_that_stays_full(pipe: Pipe) -> None:
    size = pipe.fill()
    pipe.writer.put(b"under way\n")
    assert not pipe.writer.flush(0.05)
    pipe.writer.put(b"behind it\n")
    pipe.writer.close(0.01)
    pipe.read(size)
    assert pipe.read(10) == b"under way\n"
    pipe.writer.close(PATIENCE)
    os.close(pipe.write_end)
    assert os.read(pipe.read_end, 100) == b""
    pipe.write_end = os.open(os.devnull, os.O_WRONLY)


def test_a_descriptor_that_is_closed_and_used_again_gets_nothing(pipe: Pipe) -> None:
    other, number = os.pipe()
    os.dup2(number, pipe.write_end)  # what was behind the number is gone, something else has it
    pipe.writer.put(b"line\n")
    assert pipe.read(5) == b"line\n"
    os.set_blocking(other, False)
    with pytest.raises(BlockingIOError):
        os.read(other, 1)
    os.close(other)
    os.close(number)


def test_a_non_blocking_descriptor_is_waited_for(pipe: Pipe) -> None:
    size = pipe.fill()
    os.set_blocking(pipe.write_end, False)  # for all who share the pipe
    pipe.writer.put(b"one\n")
    assert not pipe.writer.flush(0.02)
    pipe.read(size)
    assert pipe.read(4) == b"one\n"
    assert pipe.writer.dropped == 0


def test_a_broken_pipe_is_counted_and_survived() -> None:
    pipe = Pipe()
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, pipe.read_end)  # closes the only reader
    os.close(null)
    for _ in range(2):
        pipe.writer.put(b"lost\n")
        assert pipe.writer.flush(PATIENCE)
    assert pipe.writer.dropped == 2
    pipe.writer.drop()
    assert pipe.writer.dropped == 3
    pipe.close()


def test_after_a_torn_line_the_next_starts_on_its_own(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full in the middle of a line, and has room again later."""
    real = os.write
    outcomes: Iterator[int | OSError] = iter(
        [2, OSError(28, "No space left on device"), OSError(28, "still none")]
    )

    def write(fd: int, data: memoryview) -> int:
        outcome = next(outcomes, None)
        if isinstance(outcome, OSError):
            raise outcome
        return real(fd, data[:outcome])

    monkeypatch.setattr(os, "write", write)
    for line in (b"torn\n", b"lost\n", b"whole\n"):
        pipe.writer.put(line)
        assert pipe.writer.flush(PATIENCE)
    assert pipe.read(len(b"to\nwhole\nlost 2\n")) == b"to\nwhole\nlost 2\n"
