#!/bin/sh
# wsproto 1.3.2 (under trio-websocket, Hypercorn and others) reports a close with 1014, "bad gateway", as 1002, "protocol
# error", and drops its reason. It knows 1012 and 1013, which were registered with IANA beside it. A gateway sends 1014 when
# the server behind it fails, so its client takes that for a fault of its own, and a program that comes back after 1012 to
# 1014 stays away.
#
# Seen: {1011: (1011, 'why'), 1012: (1012, 'why'), 1013: (1013, 'why'), 1014: (1002, 'CLOSE with unknown reserved code'),
# 4001: (4001, 'why')}
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check wsproto==1.3.2
cat >look.py <<'PY'
from wsproto.connection import Connection, ConnectionType


def reported(code):
    client = Connection(ConnectionType.CLIENT)
    payload = code.to_bytes(2, "big") + b"why"
    client.receive_data(bytes([0x88, len(payload)]) + payload)
    (event,) = client.events()
    return int(event.code), event.reason


print({code: reported(code) for code in (1011, 1012, 1013, 1014, 4001)})
PY
found=$(venv/bin/python look.py)
echo "$found"
wanted="{1011: (1011, 'why'), 1012: (1012, 'why'), 1013: (1013, 'why'), "
wanted="${wanted}1014: (1002, 'CLOSE with unknown reserved code'), 4001: (4001, 'why')}"
[ "$found" = "$wanted" ]
