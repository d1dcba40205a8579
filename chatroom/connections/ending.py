"""The end of a connection: its reason, decided once. The first reason wins.

It doesn't know how the end is carried out; see `connection`.
"""

from collections.abc import Callable
from dataclasses import dataclass

from chatroom.core.errors import CloseCode, Disconnect
from chatroom.core.statistics import Drop

FAULT = Disconnect(CloseCode.INTERNAL_ERROR, "internal error")


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a connection ends: a close frame to send (`disconnect`) and a reason to count (`drop`).

    With neither, the client has left. A `hard` ending sends nothing more and resets the connection.
    """

    disconnect: Disconnect | None = None
    drop: Drop | None = None
    hard: bool = False


CLIENT_LEFT = Ending()
BROKEN = Ending(drop=Drop.BROKEN, hard=True)


class End:
    """The end of one connection. Any task may ask for it; the connection's task carries it out.

    `on_ask` is called when an end is asked for, and must not wait. `fault` is an exception of ours that could
    not be raised where it happened.
    """

    __slots__ = ("_on_ask", "ending", "fault")

    def __init__(self, on_ask: Callable[[Ending], None]) -> None:
        self._on_ask: Callable[[Ending], None] | None = on_ask
        self.ending: Ending | None = None
        self.fault: Exception | None = None

    def forget(self) -> None:
        """Call `on_ask` no more, so that a connection that is over isn't kept alive by its own end."""
        self._on_ask = None

    def ask(self, ending: Ending) -> None:
        """Ask for this ending, unless an end was asked for before."""
        if self.ending is None:
            self.ending = ending
            if self._on_ask is not None:
                self._on_ask(ending)

    def disconnect(self, why: Disconnect) -> None:
        """Ask for an ending with a close frame."""
        self.ask(Ending(why, Drop.of(why.code)))

    def fail(self, fault: Exception) -> None:
        """Ask for an ending because of a fault of ours. The connection's task raises it."""
        self.fault = fault
        self.disconnect(FAULT)

    def raise_fault(self) -> None:
        """Raises the fault, if there is one."""
        if self.fault is not None:
            raise self.fault
