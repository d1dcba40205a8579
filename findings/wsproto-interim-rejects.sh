#!/bin/sh
# wsproto 1.3.2 (under trio-websocket, Hypercorn and others) takes an interim answer to a client's handshake, such as 103
# Early Hints or 100 Continue, for a refusal, though the 101 that follows it lets the client in. It reports both:
# RejectConnection with the status 103, then AcceptConnection. A client acts on the first one. By RFC 9110, section 15.2, a
# client must be able to read interim answers before the final one, and may ignore them. So behind a proxy that sends them
# no client gets in, and its program is told that a server refuses with 103.
#
# Seen: plain: AcceptConnection; behind 100: RejectConnection 100, AcceptConnection; behind 103: RejectConnection 103,
# AcceptConnection
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check wsproto==1.3.2
cat >look.py <<'PY'
from base64 import b64encode
from hashlib import sha1

from wsproto import ConnectionType, WSConnection
from wsproto.events import Request


def reported(before):
    client = WSConnection(ConnectionType.CLIENT)
    request = client.send(Request(host="localhost", target="/"))
    key = request.partition(b"Sec-WebSocket-Key: ")[2].partition(b"\r\n")[0]
    accept = b64encode(sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    head = [b"HTTP/1.1 101 Switching Protocols", b"Upgrade: websocket", b"Connection: Upgrade"]
    client.receive_data(before + b"\r\n".join([*head, b"Sec-WebSocket-Accept: " + accept, b"", b""]))
    return ", ".join(
        f"{type(event).__name__} {getattr(event, 'status_code', '')}".strip() for event in client.events()
    )


print("plain:", reported(b""), end="; ")
print("behind 100:", reported(b"HTTP/1.1 100 Continue\r\n\r\n"), end="; ")
print("behind 103:", reported(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"))
PY
found=$(venv/bin/python look.py)
echo "$found"
wanted='plain: AcceptConnection; behind 100: RejectConnection 100, AcceptConnection; '
wanted="${wanted}behind 103: RejectConnection 103, AcceptConnection"
[ "$found" = "$wanted" ]
