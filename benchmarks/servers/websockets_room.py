"""A room server as one would write it with `websockets` and its broadcast(), on uvloop.

Speaks the part of our protocol that the measurements use: the token, welcome, joined, left, message with id
and ts. It checks and encodes as much as ours does for these; a message is encoded once and broadcast() frames
it once.
"""

import json
import time
from http import HTTPStatus
from urllib.parse import parse_qs, urlsplit

import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.http11 import Request, Response

TOKENS = frozenset(("dev-token", "token-alice", "token-bob", "token-carol"))
MAX_TEXT = 4000
Frame = dict[str, object]


def encode(frame: Frame) -> str:
    """Compact JSON, as ours sends it."""
    return json.dumps(frame, ensure_ascii=False, separators=(",", ":"))


class Room:
    """Members by connection, and the last id given."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.members: dict[ServerConnection, str] = {}
        self.last_id = 0

    def announce(self, event: str, username: str) -> None:
        """Tell all who are in the room now."""
        broadcast(self.members, encode({"event": event, "data": {"username": username}, "room": self.name}))


rooms: dict[str, Room] = {}


def query(connection: ServerConnection) -> dict[str, str]:
    """The parameters of the handshake."""
    assert connection.request is not None
    return {name: values[0] for name, values in parse_qs(urlsplit(connection.request.path).query).items()}


def check_token(connection: ServerConnection, request: Request) -> Response | None:
    """Refuse a handshake without a valid token."""
    if parse_qs(urlsplit(request.path).query).get("token", [""])[0] in TOKENS:
        return None
    return connection.respond(HTTPStatus.UNAUTHORIZED, "Unauthorized\n")


def answer(room: Room, username: str, raw: str | bytes) -> str | None:
    """Take one command; return the error that answers it, if any."""
    try:
        command = json.loads(raw)
    except ValueError:
        return encode({"event": "error", "data": {"message": "Invalid JSON"}, "code": "bad_json"})
    if not isinstance(command, dict) or command.get("event") != "message":
        return encode({"event": "error", "data": {"message": "Unknown event"}, "code": "bad_event"})
    data = command.get("data", {})
    text = data.get("text", "") if isinstance(data, dict) else None
    if not isinstance(text, str) or len(text := text.strip()) > MAX_TEXT:
        return encode({"event": "error", "data": {"message": "Bad data"}, "code": "bad_data"})
    if text:
        room.last_id += 1
        frame = {
            "event": "message",
            "data": {"username": username, "text": text},
            "room": room.name,
            "id": room.last_id,
            "ts": time.time_ns() // 1_000_000,
        }
        broadcast(room.members, encode(frame))
    return None


async def handle(connection: ServerConnection) -> None:
    """One connection, from its welcome until it goes."""
    wanted = query(connection)
    name, username = wanted.get("room", "general"), wanted.get("username", "anonymous")
    room = rooms.setdefault(name, Room(name))
    room.announce("joined", username)
    welcome = {
        "event": "welcome",
        "data": {"message": f"Welcome to #{name}, {username}!", "members": sorted(room.members.values())},
        "room": name,
        "username": username,
        "epoch": "-",
        "last_id": room.last_id,
        "replay": 0,
    }
    room.members[connection] = username
    try:
        await connection.send(encode(welcome))
        async for raw in connection:
            if (error := answer(room, username, raw)) is not None:
                await connection.send(error)
    finally:
        del room.members[connection]
        if room.members:
            room.announce("left", username)
        else:
            rooms.pop(name, None)


async def main() -> None:
    """Listen on a free port and say which."""
    server = await serve(
        handle,
        "127.0.0.1",
        0,
        process_request=check_token,
        compression=None,
        ping_interval=None,
        close_timeout=1,
        backlog=1024,
    )
    port = next(iter(server.sockets)).getsockname()[1]
    print(f"Listening on http://127.0.0.1:{port}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
