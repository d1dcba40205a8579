"""How a connection ends, decided once: the first reason wins."""

from dataclasses import dataclass

import trio

from chatroom.values.errors import Disconnect
from chatroom.values.statistics import Drop


@dataclass(frozen=True, slots=True)
class Ending:
    """Why: a close frame to send (`disconnect`), a reason to count (`drop`), or neither: the client left.

    A `hard` ending sends nothing more; the connection is reset.
    """

    disconnect: Disconnect | None = None
    drop: Drop | None = None
    hard: bool = False


CLIENT_LEFT = Ending()


class End:
    """The end of one connection, asked for by whoever finds a reason, awaited by its parent task."""

    __slots__ = ("_asked", "ending")

    def __init__(self) -> None:
        self._asked = trio.Event()
        self.ending: Ending | None = None

    def ask(self, ending: Ending) -> None:
        """End with this, unless an end was asked for before."""
        if self.ending is None:
            self.ending = ending
            self._asked.set()

    def disconnect(self, why: Disconnect) -> None:
        """End with a close frame."""
        self.ask(Ending(why, Drop.of(why.code)))

    async def wait(self) -> None:
        """Wait until an end was asked for."""
        await self._asked.wait()
