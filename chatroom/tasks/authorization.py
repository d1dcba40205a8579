"""By what right one connection is here, and until when.

1. A right ends `LEEWAY` seconds after its token's `exp`, by the time of day; then the connection is
   closed with 4001. A static token has no end.
2. `expiring` comes once for each token, `NOTICE_SECONDS` before that end, or at once where less is left;
   never before `welcome`.
3. Rights are taken anew as a whole, wider or narrower. Who may no longer read the room that they are in
   goes at once.

It doesn't know tokens, only whom they stand for.
"""

import math
from collections.abc import Callable
from typing import Final

from chatroom.pure import events
from chatroom.pure.claims import LEEWAY
from chatroom.pure.session import Session
from chatroom.pure.tokens import Identity
from chatroom.tasks.ending import End
from chatroom.tasks.outlet import ConnectionOutlet
from chatroom.values.codes import CloseCode
from chatroom.values.errors import Disconnect

NOTICE_SECONDS: Final = 60.0
EXPIRED: Final = Disconnect(CloseCode.TOKEN_EXPIRED, "the token has expired")
WITHDRAWN: Final = Disconnect(CloseCode.NOT_ALLOWED, "the token is no longer valid")
REBOUND: Final = Disconnect(CloseCode.NOT_ALLOWED, "the token is bound to another username now")
NO_LONGER_HERE: Final = Disconnect(CloseCode.NOT_ALLOWED, "no longer allowed in this room")


class Authorization:
    """The right of one connection. `watch` has `on_timer` called when that is due, by the time of day."""

    __slots__ = ("_end", "_notified", "_outlet", "_session", "_watch", "_welcomed", "identity")

    def __init__(
        self,
        identity: Identity,
        *,
        session: Session,
        outlet: ConnectionOutlet,
        end: End,
        watch: "Callable[[Authorization], None]",
    ) -> None:
        self.identity = identity
        self._session = session
        self._outlet = outlet
        self._end = end
        self._watch = watch
        self._welcomed = False
        self._notified = False

    def welcome(self) -> None:
        """The client has been told that it is in: from now on it may be told when that ends."""
        self._welcomed = True
        self.watch()

    def watch(self) -> None:
        """See to the end of the right from now on."""
        self._watch(self)

    def on_timer(self, now: float) -> float:
        """Do what is due at the time of day `now`; return after how many seconds to call again."""
        if self.identity.expires is None:
            return math.inf
        left = self.identity.expires + LEEWAY - now
        if left <= 0:
            self._end.disconnect(EXPIRED)
            return math.inf
        if self._notified or not self._welcomed:
            return left
        if left > NOTICE_SECONDS:
            return left - NOTICE_SECONDS
        self._notified = True
        self._outlet.answer(events.expiring(round(left)))
        return left

    def is_for(self, identity: Identity) -> bool:
        """Whether `identity` may speak under this connection's name."""
        return identity.username in (None, self._session.username)

    def renew(self, identity: Identity) -> None:
        """Be here by the right of `identity` from now on; `watch` is to follow, behind the answer.

        Ends the connection if that has no right to its room.
        """
        self._notified = self._notified and identity.key == self.identity.key
        self.identity = identity
        self._session.rights = identity.rights
        self.check_room()

    def check_room(self) -> None:
        """End the connection if it has no right to the room that it is in."""
        if not self.identity.rights.can(self._session.room, "r"):
            self._end.disconnect(NO_LONGER_HERE)

    def review(self, judge: Callable[[Identity], Identity | None]) -> bool:
        """Ask `judge` what has become of the identity; whether the connection ends by that."""
        if self._end.ending is not None:
            return False
        identity = judge(self.identity)
        if identity is None:
            self._end.disconnect(WITHDRAWN)
        elif not self.is_for(identity):
            self._end.disconnect(REBOUND)
        else:
            self.renew(identity)
            self.watch()
        return self._end.ending is not None
