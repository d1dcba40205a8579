"""Lines on their way to standard output: each once, in order, and how far their reader has got."""

import fcntl
import os
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import count

import pytest
import trio
import trio.testing

from chatroom.client import output
from chatroom.client.output import PIPE_BYTES, WAITING_BYTES, Output
from chatroom.core.errors import StartError


class Pipe:
    """Standard output is one, and the test its reader."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        fcntl.fcntl(self.writer, fcntl.F_SETPIPE_SZ, PIPE_BYTES)

    def hang_up(self) -> None:
        os.close(self.reader)
        self.reader = -1

    async def read(self, size: int) -> bytes:
        """Exactly so many bytes."""
        found = b""
        while len(found) < size:
            await trio.lowlevel.wait_readable(self.reader)
            found += os.read(self.reader, size - len(found))
        return found

    def close(self) -> None:
        for descriptor in (self.reader, self.writer):
            if descriptor >= 0:
                os.close(descriptor)


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipe]:
    found = Pipe()
    monkeypatch.setattr(output, "STANDARD_OUT", found.writer)
    yield found
    found.close()


@asynccontextmanager
async def running(found: Output[int]) -> AsyncIterator[Output[int]]:
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(found.run)
            yield found
            nursery.cancel_scope.cancel()


async def test_lines_are_written_in_order_and_known_by_their_marks(pipe: Pipe) -> None:
    async with running(Output(0)) as found:
        await found.put(b"one\n", 1)
        await found.put(b"two\n", 2)
        assert await pipe.read(8) == b"one\ntwo\n"
        await found.drained()
        assert (found.reached, found.gone) == (2, False)


async def test_nothing_has_to_be_written_up_to_a_mark(pipe: Pipe) -> None:
    found = Output(0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(found.changed)
        await trio.testing.wait_all_tasks_blocked()
        found.begin(7)
    assert found.reached == 7


async def test_what_was_reached_is_what_the_reader_could_have(pipe: Pipe) -> None:
    """The pipe holds PIPE_BYTES: a line counts when its last byte is in it."""
    line = b"x" * 999 + b"\n"
    async with running(Output(0)) as found:
        for number in range(1, 9):
            await found.put(line, number)
        await trio.sleep(0.2)
        assert found.reached <= PIPE_BYTES // 1000
        at_most = found.reached
        for read in range(1, 9):
            assert await pipe.read(1000) == line
            await trio.sleep(0.02)
            assert at_most <= found.reached <= read + PIPE_BYTES // 1000
            at_most = found.reached
        await found.drained()
        assert found.reached == 8


@pytest.mark.parametrize("size", [1, PIPE_BYTES - 1, PIPE_BYTES, PIPE_BYTES + 1, 10 * PIPE_BYTES])
async def test_lines_of_every_size_get_through_a_slow_pipe(pipe: Pipe, size: int) -> None:
    lines = [bytes([65 + number]) * size + b"\n" for number in range(12)]
    async with running(Output(0)) as found:
        async with trio.open_nursery() as nursery:

            async def put() -> None:
                for number, line in enumerate(lines, 1):
                    await found.put(line, number)

            nursery.start_soon(put)
            for line in lines:
                await trio.sleep(0.001)
                assert await pipe.read(len(line)) == line
        await found.drained()
        assert found.reached == 12


async def test_a_slow_reader_slows_whoever_puts(pipe: Pipe) -> None:
    found, put = Output(0), []
    line = b"x" * (PIPE_BYTES - 1) + b"\n"

    async def put_many() -> None:
        for number in range(1, 200):
            await found.put(line, number)
            put.append(number)

    async with running(found):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(put_many)
            await trio.sleep(0.3)
            assert WAITING_BYTES // PIPE_BYTES <= len(put) <= WAITING_BYTES // PIPE_BYTES + 2
            for _ in range(199):
                assert await pipe.read(len(line)) == line
        assert len(put) == 199


async def test_where_it_is_stopped_is_exact(pipe: Pipe) -> None:
    read = bytearray()

    def read_all() -> None:
        while piece := os.read(pipe.reader, 100):
            read.extend(piece)

    reader = threading.Thread(target=read_all)
    reader.start()
    async with running(Output(0)) as found, trio.open_nursery() as nursery:

        async def put() -> None:
            for number in count(1):
                await found.put(b"x" * 99 + b"\n", number)

        nursery.start_soon(put)
        while len(read) < 10_000:  # noqa: ASYNC110  (the reader is a thread)
            await trio.sleep(0.001)
        nursery.cancel_scope.cancel()
    reached = found.reached
    await trio.sleep(0.05)
    os.close(pipe.writer)
    pipe.writer = -1
    reader.join()
    assert reached >= 100
    assert len(read) == 100 * reached


async def test_a_hundred_thousand_lines_get_through(pipe: Pipe) -> None:
    lines = [b"%d\n" % number for number in range(100_000)]
    async with running(Output(0)) as found:
        async with trio.open_nursery() as nursery:

            async def put() -> None:
                for number, line in enumerate(lines):
                    await found.put(line, number)

            nursery.start_soon(put)
            assert await pipe.read(sum(map(len, lines))) == b"".join(lines)
        await found.drained()
        assert found.reached == 99_999


async def test_a_reader_that_has_gone_is_noticed_though_nothing_is_written(pipe: Pipe) -> None:
    found = Output(0)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(found.run)
            await trio.sleep(0.05)
            assert not found.gone
            pipe.hang_up()
    assert found.gone


async def test_whoever_waits_for_a_reader_that_goes_waits_no_longer(pipe: Pipe) -> None:
    found = Output(0)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(found.run)
            nursery.start_soon(found.put, b"x" * 2 * WAITING_BYTES, 1)
            await trio.sleep(0.1)
            nursery.start_soon(found.drained)
            await trio.sleep(0.1)
            pipe.hang_up()
    assert (found.gone, found.reached) == (True, 0)
    await found.put(b"more" * WAITING_BYTES, 2)
    await found.drained()


async def test_a_reader_that_has_gone_from_a_socket_is_noticed_at_a_write(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours, theirs = socket.socketpair()
    monkeypatch.setattr(output, "STANDARD_OUT", ours.fileno())
    found = Output(0)
    with ours, trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(found.run)
            theirs.close()
            await found.put(b"one\n", 1)
    assert found.gone


async def test_a_descriptor_that_another_process_has_made_impatient_is_waited_for(pipe: Pipe) -> None:
    os.set_blocking(pipe.writer, False)
    line = b"x" * 2999 + b"\n"
    async with running(Output(0)) as found:
        for number in range(1, 6):
            await found.put(line, number)
        await trio.sleep(0.1)
        assert await pipe.read(5 * len(line)) == line * 5
        await found.drained()
        assert found.reached == 5


async def test_a_full_disk_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    monkeypatch.setattr(output, "STANDARD_OUT", full)
    found, caught = Output(0), []
    try:
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(found.run)
                await found.put(b"one\n", 1)
    except* StartError as group:
        caught = [str(error) for error in _leaves(group)]
    finally:
        os.close(full)
    assert caught == ["standard output can't be written (No space left on device)"]
    assert found.reached == 0


def _leaves(group: BaseExceptionGroup[StartError]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found
