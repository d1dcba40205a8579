"""A room server as one would write it with picows, on uvloop.

A message is encoded once, and each member gets it by send(). `--tls FILE`: by TLS, with that certificate.
"""

import ssl
import sys
from collections.abc import Collection
from http import HTTPStatus

import uvloop
from picows import (
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
    ws_create_server,
)
from room_protocol import TOKENS, Room, read_query

rooms: dict[str, Room] = {}


def broadcast(members: Collection[WSTransport], text: str) -> None:
    """Send one frame to each member."""
    frame = text.encode()
    for member in members:
        member.send(WSMsgType.TEXT, frame)


class Member(WSListener):  # type: ignore[misc]
    """One connection, from its welcome until it goes."""

    def __init__(self, wanted: dict[str, str]) -> None:
        self._username = wanted.get("username", "anonymous")
        self._name = wanted.get("room", "general")

    def on_ws_connected(self, transport: WSTransport) -> None:
        """Let it in."""
        self._room = rooms.setdefault(self._name, Room(self._name, broadcast))
        transport.send(WSMsgType.TEXT, self._room.enter(transport, self._username).encode())

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Handle one frame: a command, or a close frame, which is answered."""
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()
        elif frame.msg_type == WSMsgType.TEXT:
            error = self._room.handle(self._username, frame.get_payload_as_utf8_text())
            if error is not None:
                transport.send(WSMsgType.TEXT, error.encode())

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """Let it go."""
        self._room.leave(transport)
        if not self._room.members:
            rooms.pop(self._name, None)


def admit(request: WSUpgradeRequest) -> WSListener | WSUpgradeResponseWithListener:
    """Refuse a handshake without a valid token."""
    wanted = read_query(request.path.decode())
    if wanted.get("token") in TOKENS:
        return Member(wanted)
    refusal = WSUpgradeResponse.create_error_response(HTTPStatus.UNAUTHORIZED, b"Unauthorized\n")
    return WSUpgradeResponseWithListener(refusal, None)


async def main() -> None:
    """Listen on a free port and say which."""
    tls = None
    if "--tls" in sys.argv:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(sys.argv[sys.argv.index("--tls") + 1])
    server = await ws_create_server(admit, "127.0.0.1", 0, ssl=tls, backlog=1024)
    port = next(iter(server.sockets)).getsockname()[1]
    print(f"Listening on http{'s' if tls else ''}://127.0.0.1:{port}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
