"""Kill -9 under load: clients that talk, edit, delete, resume and retry by themselves find nothing missing.

`CHAT_ROUNDS=500 ./test.sh tests/served/test_served_kill.py -s` plays so many rounds.
"""

import os
import random
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from tests.support.crowd import ROOMS, Crowd, read_log
from tests.support.history import Checker
from tests.support.process import ServerProcess, clean_environment
from tests.support.raw import seed

CLIENTS = 20
ROUNDS = int(os.environ.get("CHAT_ROUNDS") or (25 if os.environ.get("CI") == "true" else 5))
SECONDS = 0.8
LEAST = 20
"""Messages that must have been told to be stored before the next kill."""
WHOLE_READS = 25
"""In so many rounds, and then in every so many-th, the log is read and judged."""
CHANGES = 0.3
"""How many of the things that clients say are edits and deletions."""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


async def talk(crowd: Crowd) -> None:
    """Let the crowd talk for a moment, and until enough is stored."""
    enough = crowd.settled + LEAST
    with trio.fail_after(60):
        await trio.sleep(crowd.chance.uniform(SECONDS / 4, SECONDS))
        while crowd.settled < enough:  # noqa: ASYNC110  (it tells nobody)
            await trio.sleep(0.02)


async def settled(crowd: Crowd) -> None:
    """Wait until every client knows the fate of all that it said."""
    with trio.fail_after(60):
        while crowd.pending:  # noqa: ASYNC110  (it tells nobody)
            await trio.sleep(0.02)


async def rounds(folder: Path, chance: random.Random, alive: Callable[[], None]) -> None:
    port = free_port()
    options = ("--host", "127.0.0.1", "--port", str(port), "--rate", "0", "--max-per-user", "100")

    def server() -> ServerProcess:
        return ServerProcess(*options, cwd=folder, env=clean_environment(measured=False))

    crowd = Crowd([port], Checker(), chance, CHANGES)
    crowd.add(CLIENTS)
    running = server()
    async with trio.open_nursery() as nursery:
        await running.__aenter__()
        try:
            for client in crowd.clients:
                nursery.start_soon(client.run)
            for number in range(1, ROUNDS + 1):
                alive()
                crowd.talking = True
                await talk(crowd)
                running.process.kill()
                await running.__aexit__(None, None, None)
                running = server()
                await running.__aenter__()
                crowd.talking = False
                await settled(crowd)
                if number > WHOLE_READS and number % WHOLE_READS and number < ROUNDS:
                    continue
                log = dict([await read_log(port, room) for room in ROOMS])
                kept = sum(map(len, log.values()))
                print(f"round {number} of {ROUNDS}: {kept} messages, {crowd.changed} changes", flush=True)
                assert crowd.checker.judge(log) == []
                assert kept >= crowd.settled >= LEAST * number
                assert crowd.changed >= number
            nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                await running.__aexit__(None, None, None)
    assert all(client.connections > ROUNDS / 2 for client in crowd.clients)


@pytest.mark.usefixtures("pyz")
def test_nothing_that_anyone_saw_is_lost(tmp_path: Path, alive: Callable[[], None]) -> None:
    trio.run(rounds, tmp_path, random.Random(seed()), alive)
