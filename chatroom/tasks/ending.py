"""How a connection ends, decided once: the first reason wins."""

from collections.abc import Callable
from dataclasses import dataclass

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
    """The end of one connection: asked for by whoever finds a reason, carried out by its parent task."""

    __slots__ = ("_on_ask", "ending")

    def __init__(self) -> None:
        self._on_ask: Callable[[Ending], None] | None = None
        self.ending: Ending | None = None

    def listen(self, on_ask: Callable[[Ending], None]) -> None:
        """Call `on_ask`, which must not wait, when an end is asked for; at once if it was already."""
        self._on_ask = on_ask
        if self.ending is not None:
            on_ask(self.ending)

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
