"""How a connection ends, decided once: the first reason wins."""

from collections.abc import Callable
from dataclasses import dataclass

from chatroom.core.errors import CloseCode, Disconnect
from chatroom.core.statistics import Drop

FAULT = Disconnect(CloseCode.INTERNAL_ERROR, "internal error")


@dataclass(frozen=True, slots=True)
class Ending:
    """Why: a close frame to send (`disconnect`), a reason to count (`drop`), or neither: the client left.

    A `hard` ending sends nothing more; the connection is reset.
    """

    disconnect: Disconnect | None = None
    drop: Drop | None = None
    hard: bool = False


CLIENT_LEFT = Ending()
BROKEN = Ending(drop=Drop.BROKEN, hard=True)


class End:
    """The end of one connection: asked for by whoever finds a reason, carried out by its parent task.

    `on_ask`, which must not wait, is called when an end is asked for. `fault` is what went wrong in us where
    nobody could raise it.
    """

    __slots__ = ("_on_ask", "ending", "fault")

    def __init__(self, on_ask: Callable[[Ending], None]) -> None:
        self._on_ask: Callable[[Ending], None] | None = on_ask
        self.ending: Ending | None = None
        self.fault: Exception | None = None

    def forget(self) -> None:
        """Nobody listens any more; a connection that is over is not to be held by its own end."""
        self._on_ask = None

    def ask(self, ending: Ending) -> None:
        """End with this, unless an end was asked for before."""
        if self.ending is None:
            self.ending = ending
            if self._on_ask is not None:
                self._on_ask(ending)

    def disconnect(self, why: Disconnect) -> None:
        """End with a close frame."""
        self.ask(Ending(why, Drop.of(why.code)))

    def fail(self, fault: Exception) -> None:
        """End because of a fault of ours, which is raised in the parent task."""
        self.fault = fault
        self.disconnect(FAULT)

    def raise_fault(self) -> None:
        """Raise what went wrong, if anything did."""
        if self.fault is not None:
            raise self.fault
