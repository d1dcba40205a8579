"""A network that breaks all the time: a connection is cut after a number of bytes that chance chooses."""

import random

import trio


class Cutter:
    """Forwards connections to a port of this machine, in Trio.

    A connection is cut when one of its directions has carried its bytes: in the handshake, within a frame,
    between the commit of a message and its echo.
    """

    def __init__(self, target: int, chance: random.Random, *, most: int = 4000) -> None:
        self.target = target
        self.cuts = 0
        self.port = 0
        self.calm = False
        """Cut nothing more."""
        self._chance = chance
        self._most = most

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Forward until it is cancelled."""
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        await trio.serve_listeners(self._carry, listeners, task_status=_Named(task_status))

    async def _carry(self, client: trio.SocketStream) -> None:
        async with client:
            try:
                server = await trio.open_tcp_stream("127.0.0.1", self.target)
            except OSError:
                return
            async with server, trio.open_nursery() as nursery:
                for one, other in ((client, server), (server, client)):
                    nursery.start_soon(self._forward, one, other, nursery.cancel_scope)

    async def _forward(
        self, one: trio.SocketStream, other: trio.SocketStream, scope: trio.CancelScope
    ) -> None:
        left = self._chance.randrange(self._most)
        try:
            async for data in one:
                cut = len(data) >= left and not self.calm
                await other.send_all(data[:left] if cut else data)
                left -= len(data)
                if cut:
                    self.cuts += 1
                    break
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        scope.cancel()


class _Named:
    """Tells that it listens, and nothing more."""

    def __init__(self, task_status: trio.TaskStatus[None]) -> None:
        self._task_status = task_status

    def started(self, value: object = None) -> None:
        self._task_status.started()
