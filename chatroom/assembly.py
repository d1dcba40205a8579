"""Assembly: the parts of a connection put together, for a client that has been let in.

What all connections share is bound here once, not for each of them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

from chatroom.adapters.engine import Engine
from chatroom.adapters.frontdoor import Admitted
from chatroom.adapters.transport import Transport
from chatroom.adapters.wire import Wire
from chatroom.pure.bucket import BucketStore
from chatroom.pure.session import Session
from chatroom.pure.tokens import Identity
from chatroom.site import Admission
from chatroom.tasks.authorization import Authorization
from chatroom.tasks.broker import Broker
from chatroom.tasks.connection import Connection, Opening
from chatroom.tasks.ending import End
from chatroom.tasks.handler import Handler, Who
from chatroom.tasks.outlet import ConnectionOutlet
from chatroom.tasks.programme import Programme
from chatroom.tasks.reader import Reader
from chatroom.tasks.stay import Member
from chatroom.tasks.writer import Writer
from chatroom.values.http import Peer
from chatroom.values.limits import Limits


@dataclass(frozen=True, slots=True)
class Assembled:
    """A connection that can be run: how it opens, and whose it is."""

    connection: Connection
    opening: Opening
    who: Who


class Assembly:
    """Makes connections; each gets the next number."""

    def __init__(
        self,
        *,
        broker: Broker,
        engine: Engine,
        limits: Limits,
        renew: Callable[[Peer, str], Identity | None],
        watch: Callable[[Authorization], None],
    ) -> None:
        self._broker = broker
        self._engine = engine
        self._limits = limits
        self._renew = renew
        self._watch = watch
        self._pace = BucketStore(limits.message_rate, limits.message_burst)
        self._numbers = count(1)
        self._let_go = broker.let_go
        self._delivered = broker.fanout.count

    def make(self, transport: Transport, admitted: Admitted[Admission]) -> Assembled:
        """The connection of a client that has been let in; nothing of it runs yet."""
        admission = admitted.admission
        wish = admission.wish
        end = End()
        outlet = ConnectionOutlet(end)
        wire = self._make_wire(transport, admitted.head + admitted.trailing, outlet, end)
        member = Member(admission.username, outlet)
        programme = Programme(member, wire, self._engine, let_go=self._let_go, delivered=self._delivered)
        who = Who(next(self._numbers), admission.username, admission.peer)
        session = Session(admission.username, wish.room, admission.identity.rights, self._limits)
        authorization = Authorization(
            admission.identity, session=session, outlet=outlet, end=end, watch=self._watch
        )
        handler = Handler(
            session=session,
            member=member,
            outlet=outlet,
            broker=self._broker,
            engine=self._engine,
            authorization=authorization,
            renew=self._renew,
            who=who,
        )
        reader = Reader(
            session=session, handler=handler, end=end, wire=wire, pace=self._pace, limits=self._limits
        )
        writer = Writer(wire, outlet, programme, end)
        connection = Connection(
            wire=wire,
            end=end,
            member=member,
            handler=handler,
            reader=reader,
            writer=writer,
            authorization=authorization,
            broker=self._broker,
        )
        return Assembled(connection, Opening(wish.since, wish.epoch, admission.subprotocol), who)

    def _make_wire(self, transport: Transport, initial: bytes, outlet: ConnectionOutlet, end: End) -> Wire:
        wire = Wire(transport, self._limits, initial=initial, on_pending=outlet.wake, on_fault=end.disconnect)
        outlet.attach(wire)
        return wire
