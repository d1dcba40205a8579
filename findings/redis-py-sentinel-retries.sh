#!/bin/sh
# redis-py 8.1.0 connects to a Sentinel eleven times where it was told never to try again. The `retry` of
# `Sentinel(…, retry=Retry(NoBackoff(), 0))` holds for the servers that the Sentinels name. The connections to the Sentinels
# get only those arguments that begin with `socket_`. Take time-outs of 0.2 s, and a Sentinel that accepts and doesn't answer,
# as a frozen machine does: it holds up each look for the primary for 5 to 7 s before the next Sentinel is asked. A server that
# does the same holds a client up for 0.2 s. The remedy is `sentinel_kwargs` with a `retry` and with the time-outs.
#
# Seen: server 1 connection, Sentinel 11 connections, Sentinel with sentinel_kwargs 1 connection
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
connections = []


def accept():
    while True:
        connections.append(silent.accept())


def count(call):
    connections.clear()
    try:
        call()
    except RedisError:
        return f"{len(connections)} connection{'s' * (len(connections) > 1)}"


threading.Thread(target=accept, daemon=True).start()
address = silent.getsockname()
once = {"socket_timeout": 0.2, "socket_connect_timeout": 0.2, "retry": Retry(NoBackoff(), 0)}
print(
    f"server {count(Redis(*address, **once).ping)},",
    f"Sentinel {count(lambda: Sentinel([address], **once).discover_master('name'))},",
    f"Sentinel with sentinel_kwargs "
    f"{count(lambda: Sentinel([address], sentinel_kwargs=once, **once).discover_master('name'))}",
)
PY
found=$(venv/bin/python look.py)
echo "$found"
[ "$found" = 'server 1 connection, Sentinel 11 connections, Sentinel with sentinel_kwargs 1 connection' ]
