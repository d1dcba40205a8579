"""What all connections of a server share."""

from collections.abc import Callable
from dataclasses import dataclass

from chatroom.auth.tokens import Identity
from chatroom.connections.forbidden import ForbiddenCommands
from chatroom.connections.timers import Timers
from chatroom.core.bucket import BucketStore
from chatroom.core.http import Peer
from chatroom.core.limits import Limits
from chatroom.engines.engine import Engine
from chatroom.rooms.broker import Broker


@dataclass(frozen=True, slots=True)
class Services:
    """`pace` is that of messages, by username; `keepalive` and `expiry` call back when something is due,
    by the clock and by the time of day; `renew` tells whom a token stands for that comes later, see
    `Door.renew`.
    """

    broker: Broker
    engine: Engine
    limits: Limits
    pace: BucketStore
    keepalive: Timers
    expiry: Timers
    renew: Callable[[Peer, str, str], Identity | None]
    forbidden: ForbiddenCommands
