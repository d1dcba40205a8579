"""Kill -9 under load: 20 clients that reconnect, resume and retry by themselves find nothing missing."""

import os
import random
import socket
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


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


async def settled(crowd: Crowd) -> None:
    """Wait until every client knows the fate of all that it said."""
    with trio.fail_after(30):
        while crowd.pending:  # noqa: ASYNC110  (it tells nobody)
            await trio.sleep(0.02)


async def rounds(folder: Path, chance: random.Random) -> None:
    port = free_port()
    options = ("--host", "127.0.0.1", "--port", str(port), "--rate", "0", "--max-per-user", "100")

    def server() -> ServerProcess:
        return ServerProcess(*options, cwd=folder, env=clean_environment(measured=False))

    crowd = Crowd(port, Checker(), chance)
    crowd.add(CLIENTS)
    running = server()
    async with trio.open_nursery() as nursery:
        await running.__aenter__()
        try:
            for client in crowd.clients:
                nursery.start_soon(client.run)
            for number in range(ROUNDS):
                crowd.talking = True
                await trio.sleep(chance.uniform(SECONDS / 4, SECONDS))
                running.process.kill()
                await running.__aexit__(None, None, None)
                running = server()
                await running.__aenter__()
                crowd.talking = False
                await settled(crowd)
                log = {room: await read_log(port, room) for room in ROOMS}
                kept = sum(map(len, log.values()))
                print(f"round {number + 1}: {kept} messages kept")
                assert crowd.checker.judge(log) == []
                assert kept > 20 * (number + 1)
            nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                await running.__aexit__(None, None, None)
    assert all(client.connections > ROUNDS / 2 for client in crowd.clients)


@pytest.mark.usefixtures("pyz")
def test_nothing_that_anyone_saw_is_lost(tmp_path: Path) -> None:
    trio.run(rounds, tmp_path, random.Random(seed()))
