"""What all connections of a server share, and the log of forbidden commands.

Owns the set of shared objects, how the log names a client, and the log event `forbidden`.

It doesn't know what a connection does with them.
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
from chatroom.protocol.eventtext import EventTexts
from chatroom.rooms.broker import Broker


class ClientInfo(NamedTuple):
    """The number of a connection, its username and its peer."""

    conn: str
    username: str
    peer: Peer

    def fields(self) -> dict[str, object]:
        """The fields by which the log names the client."""
        return {"conn": self.conn, "username": self.username, "peer": self.peer.address}


class ForbiddenCommands:
    """The log of commands without a right to them, one for all connections.

    A client may send 200 such commands a second. So only some get a line each, and the others are summed up.
    `watch` has `on_timer` called when a sum has to be logged.
    """

    __slots__ = ("_sampler", "_watch")

    def __init__(self, watch: "Callable[[ForbiddenCommands], None]") -> None:
        self._sampler = Sampler()
        self._watch = watch

    def log(self, client: ClientInfo, command: str, room: str) -> None:
        """Log a command of `client`, now or in a sum with others, within a second."""
        waiting = self._sampler.waiting
        if self._sampler.passes(command, trio.current_time()):
            log_event(logging.INFO, "forbidden", **client.fields(), command=command, room=room, count=1)
        elif not waiting:
            self._watch(self)

    def on_timer(self, now: float) -> float:
        """Log the sums, if that is due. Returns the seconds until the next call."""
        if wait := self._sampler.wait(now):
            return wait
        self.log_sums()
        return math.inf

    def log_sums(self) -> None:
        """Log the number of commands that have no line yet."""
        for command, count in self._sampler.left_out().items():
            log_event(logging.INFO, "forbidden", command=command, count=count)


@dataclass(frozen=True, slots=True)
class Services:
    """What all connections of a server share.

    `pace` limits messages by username, `requests` the other requests by HTTP. `event_texts` is what
    streams share. `keepalive` and `expiry` call back when something is due, by the
    clock and by the time of day. `renew` gives the identity of a later token, see `Admissions.renew`.
    `moderates` says whether, in that room, that username is known to have the right to moderate.
    `hide_rooms`: nobody is told which rooms there are.
    """

    broker: Broker
    engine: Engine
    limits: Limits
    pace: RateLimiters
    requests: RateLimiters
    event_texts: EventTexts
    keepalive: Timers
    expiry: Timers
    renew: Callable[[Peer, str, str], Identity | None]
    moderates: Callable[[str, str], bool]
    hide_rooms: bool
    forbidden: ForbiddenCommands
