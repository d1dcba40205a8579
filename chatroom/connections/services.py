"""What all connections of a server share, and what it logs of forbidden commands.

What all connections of a server share.

The log's `forbidden`: what clients have asked for without a right to it.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import trio

from chatroom.auth.tokens import Identity
from chatroom.connections.timers import Timers
from chatroom.core.http import Peer
from chatroom.core.limits import Limits
from chatroom.core.logevents import log_event
from chatroom.core.pace import RateLimiters, Sampler
from chatroom.engines.engine import Engine
from chatroom.rooms.broker import Broker


class ClientInfo(NamedTuple):
    """Whose connection it is."""

    conn: str
    username: str
    peer: Peer

    def fields(self) -> dict[str, object]:
        """How the log names it."""
        return {"conn": self.conn, "username": self.username, "peer": self.peer.address}


class ForbiddenCommands:
    """One for all connections: a client may ask for what it may not 200 times a second.

    `watch` has `on_timer` called when there is something to tell.
    """

    __slots__ = ("_sampler", "_watch")

    def __init__(self, watch: "Callable[[ForbiddenCommands], None]") -> None:
        self._sampler = Sampler()
        self._watch = watch

    def note(self, client: ClientInfo, command: str, room: str) -> None:
        """Tell of a command of `who`, now or in a sum with others, within a second."""
        waiting = self._sampler.waiting
        if self._sampler.passes(command, trio.current_time()):
            log_event(logging.INFO, "forbidden", **client.fields(), command=command, room=room, count=1)
        elif not waiting:
            self._watch(self)

    def on_timer(self, now: float) -> float:
        """Tell how many more there were, if that is due; return after how many seconds to call again."""
        if wait := self._sampler.wait(now):
            return wait
        self.tell()
        return math.inf

    def tell(self) -> None:
        """Tell how many there were that haven't been told of."""
        for command, count in self._sampler.left_out().items():
            log_event(logging.INFO, "forbidden", command=command, count=count)


@dataclass(frozen=True, slots=True)
class Services:
    """What all connections of a server share.

    `pace` limits messages by username. `keepalive` and `expiry` call back when something is due, by the
    clock and by the time of day. `renew` gives the identity of a later token, see `Admissions.renew`.
    """

    broker: Broker
    engine: Engine
    limits: Limits
    pace: RateLimiters
    keepalive: Timers
    expiry: Timers
    renew: Callable[[Peer, str, str], Identity | None]
    forbidden: ForbiddenCommands
