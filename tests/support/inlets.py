"""Inlets for a Wire: one that keeps what comes until the test takes it."""

from collections import deque

import trio


class Letterbox:
    """Holds the messages of one connection, `room` at a time; `closed` counts how often it was told."""

    def __init__(self, room: int = 1 << 40) -> None:
        self.messages: deque[str | bytes] = deque()
        self.room = room
        self.closed = 0
        self._change = trio.Event()

    # For the Wire

    def take(self, message: str | bytes) -> None:
        assert not self.closed, "nothing comes behind the end"
        self.messages.append(message)
        self._changed()

    @property
    def crowded(self) -> bool:
        return len(self.messages) >= self.room

    async def wait_room(self) -> None:
        while self.crowded:
            await self._change.wait()

    def close(self) -> None:
        self.closed += 1
        self._changed()

    # For the test

    async def get(self) -> str | bytes:
        """The next message."""
        while not self.messages:
            assert not self.closed, "no more will come"
            await self._change.wait()
        message = self.messages.popleft()
        self._changed()
        return message

    def empty(self) -> list[str | bytes]:
        """All that is there."""
        messages = list(self.messages)
        self.messages.clear()
        self._changed()
        return messages

    def _changed(self) -> None:
        self._change.set()
        self._change = trio.Event()
