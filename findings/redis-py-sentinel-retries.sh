#!/bin/sh
# redis-py 8.1.0 dials a Sentinel eleven times where it was told never to try again. `Sentinel(…, retry=Retry(NoBackoff(), 0))`
# holds for the servers that it finds; of what is given, the Sentinels themselves get only what begins with `socket_`. So
# with time-outs of 0.2 s, a Sentinel that accepts and doesn't answer (a frozen machine) held up each look for the primary
# for 5 to 7 s before the next Sentinel was asked; a server that does the same, for 0.2 s. It takes `sentinel_kwargs` with a
# `retry`, and then the time-outs have to stand there, too.
#
# Seen: server 1 dial, Sentinel 11 dials, Sentinel with sentinel_kwargs 1 dial
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check redis==8.1.0
cat >look.py <<'PY'
import socket
import threading

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry
from redis.sentinel import Sentinel

silent = socket.create_server(("127.0.0.1", 0))
dials = []


def accept():
    while True:
        dials.append(silent.accept())


def count(call):
    dials.clear()
    try:
        call()
    except RedisError:
        return f"{len(dials)} dial{'s' * (len(dials) > 1)}"


threading.Thread(target=accept, daemon=True).start()
place = silent.getsockname()
once = {"socket_timeout": 0.2, "socket_connect_timeout": 0.2, "retry": Retry(NoBackoff(), 0)}
print(
    f"server {count(Redis(*place, **once).ping)},",
    f"Sentinel {count(lambda: Sentinel([place], **once).discover_master('name'))},",
    f"Sentinel with sentinel_kwargs "
    f"{count(lambda: Sentinel([place], sentinel_kwargs=once, **once).discover_master('name'))}",
)
PY
found=$(venv/bin/python look.py)
echo "$found"
[ "$found" = 'server 1 dial, Sentinel 11 dials, Sentinel with sentinel_kwargs 1 dial' ]
