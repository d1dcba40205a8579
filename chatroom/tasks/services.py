"""What all connections of a server share."""

from collections.abc import Callable
from dataclasses import dataclass

from chatroom.adapters.engine import Engine
from chatroom.pure.bucket import BucketStore
from chatroom.pure.tokens import Identity
from chatroom.tasks.broker import Broker
from chatroom.tasks.forbidden import ForbiddenCommands
from chatroom.tasks.timers import Timers
from chatroom.values.http import Peer
from chatroom.values.limits import Limits


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
