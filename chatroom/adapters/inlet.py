"""Inlet: where the messages of a connection go that a Wire has read. The task that reads calls it."""

from typing import Protocol


class Inlet(Protocol):
    """Takes messages in their order. Nothing here raises."""

    def take(self, message: str | bytes) -> None:
        """A message has come; bytes only where a Wire lets binary messages through."""

    @property
    def crowded(self) -> bool:
        """No more, please, until `wait_room` has returned."""

    async def wait_room(self) -> None:
        """Wait until there is room for another message."""

    def close(self) -> None:
        """No more will come. May be called again."""
