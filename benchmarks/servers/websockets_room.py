"""A room server as one would write it with `websockets` and its broadcast(), on uvloop.

A message is encoded once, and broadcast() frames it once. `--tls FILE` has it speak TLS by that certificate.
"""

import ssl
import sys
from http import HTTPStatus

import uvloop
from room_protocol import TOKENS, Room, read_query
from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.http11 import Request, Response

rooms: dict[str, Room] = {}


def check_token(connection: ServerConnection, request: Request) -> Response | None:
    """Refuse a handshake without a valid token."""
    if read_query(request.path).get("token") in TOKENS:
        return None
    return connection.respond(HTTPStatus.UNAUTHORIZED, "Unauthorized\n")


async def handle(connection: ServerConnection) -> None:
    """One connection, from its welcome until it goes."""
    assert connection.request is not None
    wanted = read_query(connection.request.path)
    name, username = wanted.get("room", "general"), wanted.get("username", "anonymous")
    room = rooms.setdefault(name, Room(name, broadcast))
    welcome = room.enter(connection, username)
    try:
        await connection.send(welcome)
        async for raw in connection:
            if (error := room.handle(username, raw)) is not None:
                await connection.send(error)
    finally:
        room.leave(connection)
        if not room.members:
            rooms.pop(name, None)


async def main() -> None:
    """Listen on a free port and say which."""
    tls = None
    if "--tls" in sys.argv:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(sys.argv[sys.argv.index("--tls") + 1])
    server = await serve(
        handle,
        "127.0.0.1",
        0,
        ssl=tls,
        process_request=check_token,
        compression=None,
        ping_interval=None,
        close_timeout=1,
        backlog=1024,
    )
    port = next(iter(server.sockets)).getsockname()[1]
    print(f"Listening on http{'s' if tls else ''}://127.0.0.1:{port}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
