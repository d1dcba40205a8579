"""The authorization of one connection: its identity, its rights, and when they end.

Owns the identity, the notice before its end, and the reasons to close a connection for its rights. Rules:

1. An authorization ends `LEEWAY` seconds after its token's `exp`, by the time of day. Then the connection is
   closed with 4001. A static token has no end.
2. `expiring` is sent once for each token, `NOTICE_SECONDS` before that end, or at once if less time is left;
   but never before `welcome`.
3. New rights replace the old ones as a whole, wider or narrower. A client that may no longer read its room is
   closed at once.

It doesn't know tokens, only the identities that they prove.
"""

import math
from typing import Final

from chatroom.auth.tokens import Identity, Verifier
from chatroom.auth.webtokens import LEEWAY
from chatroom.connections.ending import End
from chatroom.connections.outgoing import Outgoing
from chatroom.connections.timers import Timers
from chatroom.core.errors import CloseCode, Disconnect
from chatroom.protocol import events
from chatroom.protocol.session import Session

NOTICE_SECONDS: Final = 60.0
EXPIRED: Final = Disconnect(CloseCode.TOKEN_EXPIRED, "the token has expired")
WITHDRAWN: Final = Disconnect(CloseCode.NOT_ALLOWED, "the token is no longer valid")
REBOUND: Final = Disconnect(CloseCode.NOT_ALLOWED, "the token is bound to another username now")
RESERVED: Final = Disconnect(CloseCode.NOT_ALLOWED, "the username is reserved for other tokens now")
NO_LONGER_HERE: Final = Disconnect(CloseCode.NOT_ALLOWED, "no longer allowed in this room")


class Authorization:
    """The authorization of one connection. `expiry` calls `on_timer` when it is due, by the time of day."""

    __slots__ = ("_end", "_expiry", "_notified", "_outgoing", "_session", "_welcomed", "identity")

    def __init__(
        self, identity: Identity, session: Session, outgoing: Outgoing, end: End, expiry: Timers
    ) -> None:
        self.identity = identity
        self._session = session
        self._outgoing = outgoing
        self._end = end
        self._expiry = expiry
        self._welcomed = False
        self._notified = False

    @property
    def room(self) -> str:
        """The client's room, or the one that it is entering."""
        return self._session.room

    def welcome(self) -> None:
        """The client has got `welcome`. From now on it may get `expiring`."""
        self._welcomed = True
        self.watch()

    def watch(self) -> None:
        """End the connection when the authorization ends, from now on."""
        self._expiry.add(self)

    def on_timer(self, now: float) -> float:
        """Do what is due at the time of day `now`. Returns the seconds until the next call."""
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
        self._outgoing.answer(events.expiring(round(left)))
        return left

    def renew(self, identity: Identity) -> None:
        """Replace the identity. The caller calls `watch` behind its answer.

        Ends the connection if the new identity has no right to its room.
        """
        self._notified = self._notified and identity.key == self.identity.key
        self.identity = identity
        self._session.rights = identity.rights
        self._outgoing.member.renew(identity.rights)
        self.check_room()

    def check_room(self) -> None:
        """End the connection if it has no right to its room."""
        if not self.identity.rights.can(self._session.room, "r"):
            self._end.disconnect(NO_LONGER_HERE)

    def review(self, verifier: Verifier) -> bool:
        """Check the identity with a new state of `verifier`. Returns whether the connection ends by that."""
        if self._end.ending is not None:
            return False
        identity = verifier.review(self.identity)
        if identity is None:
            self._end.disconnect(WITHDRAWN)
        elif identity.username not in (None, self._session.username):
            self._end.disconnect(REBOUND)
        elif not verifier.allows(identity, self._session.username):
            self._end.disconnect(RESERVED)
        else:
            self.renew(identity)
            self.watch()
        return self._end.ending is not None
