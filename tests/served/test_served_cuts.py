"""`say` and `tail` through a network that breaks all the time: nothing is lost, doubled or out of order.

`CHAT_CUTS=1000 ./test.sh tests/served/test_served_cuts.py -s` goes on until so many connections were cut.
"""

import json
import os
import random
import signal
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import trio

from tests.support.commands import environment
from tests.support.cutter import Cutter
from tests.support.process import ServerProcess, clean_environment, python_command
from tests.support.raw import seed

CUTS = int(os.environ.get("CHAT_CUTS") or (150 if os.environ.get("CI") == "true" else 40))
SENDERS = ("alice", "bob", "carol")
UNKNOWN = 75


class Scene:
    """Commands that talk and read through the cutter, and what they have been told."""

    def __init__(
        self, folder: Path, cutter: Cutter, chance: random.Random, alive: Callable[[], None]
    ) -> None:
        self.folder = folder
        self.cutter = cutter
        self.chance = chance
        self.alive = alive
        self.said: dict[str, list[str]] = {}
        self.retries = 0
        self.kills = 0

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.cutter.port}"

    def done(self) -> bool:
        return self.cutter.cuts >= CUTS

    @asynccontextmanager
    async def command(self, *arguments: str, **streams: Any) -> AsyncIterator[trio.Process]:
        """A command that runs, and is killed at the end if it still does."""
        process = await trio.lowlevel.open_process(
            [*python_command(), arguments[0], self.url, *arguments[1:]],
            env=environment(self.folder),
            **streams,
        )
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()

    async def stream(self, name: str) -> None:
        """One `say --lines` that gets its lines one by one."""
        said = self.said[name] = []
        arguments = ("say", "--username", name, "--lines", "--timeout", "90s")
        async with self.command(*arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            while not self.done():
                said.append(f"{name} {len(said)}")
                await process.stdin.send_all(said[-1].encode() + b"\n")
                await trio.sleep(self.chance.random() * 0.1)
            self.cutter.calm = True
            await process.stdin.aclose()
            assert await process.wait() == 0, name
            assert b"stored" in await process.stdout.receive_some()

    async def insist(self, name: str) -> None:
        """One `say` after the other, each as a script does it: again while it ends with 75, or is killed."""
        said = self.said[name] = []
        while not self.done():
            said.append(f"{name} {len(said)}")
            while (code := await self.say_once(name, said[-1])) != 0:
                assert code in (UNKNOWN, -signal.SIGKILL), code
                self.retries += 1

    async def say_once(self, name: str, text: str) -> int:
        patience = self.chance.choice(("300ms", "5s", "60s"))
        quiet = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        async with self.command("say", "--username", name, "--timeout", patience, **quiet) as process:
            assert process.stdin is not None
            await process.stdin.send_all(text.encode())
            await process.stdin.aclose()
            if self.chance.random() < 0.5:
                with trio.move_on_after(self.chance.random() * 1.2):
                    return await process.wait()
                process.kill()
                self.kills += 1
            return await process.wait()

    async def tail(self, number: int) -> None:
        """A `tail` that is ended and started again, with a file for its place."""
        while not self.done():
            self.alive()
            await self.tail_once(number, 1 + self.chance.random() * 20, self.done)

    async def tail_once(self, number: int, seconds: float, enough: Callable[[], bool]) -> None:
        """A `tail` for so many seconds, or until it is enough; what it writes comes behind what it wrote."""
        state = str(self.folder / f"place{number}")
        arguments = ("tail", "--username", f"reader{number}", "--json", "--all", "--state", state)
        with self.output(number).open("ab") as out:
            async with self.command(*arguments, stdout=out, stderr=subprocess.DEVNULL) as process:
                with trio.move_on_after(seconds):
                    while not enough():  # noqa: ASYNC110  (it tells nobody)
                        await trio.sleep(0.1)
                process.terminate()
                assert await process.wait() in (0, -signal.SIGTERM), "the latter where it had hardly begun"

    def output(self, number: int) -> Path:
        return self.folder / f"out{number}"

    def frames(self, number: int) -> list[dict[str, Any]]:
        """All that a reader has got."""
        return [json.loads(line) for line in self.output(number).read_text().splitlines()]


async def test_nothing_is_lost_doubled_or_out_of_order(
    pyz: Path, tmp_path: Path, alive: Callable[[], None]
) -> None:
    chance = random.Random(seed())
    options = (
        "--host",
        "127.0.0.1",
        "--rate",
        "0",
        "--db",
        str(tmp_path / "chat.db"),
        "--max-per-user",
        "1000",
    )
    with trio.fail_after(900):
        async with ServerProcess(*options, env=clean_environment(measured=False)) as server:
            cutter = Cutter(server.port, chance)
            scene = Scene(tmp_path, cutter, chance, alive)
            async with trio.open_nursery() as network:
                await network.start(cutter.run)
                async with trio.open_nursery() as nursery:
                    for number in range(2):
                        nursery.start_soon(scene.tail, number)
                    for name in SENDERS:
                        nursery.start_soon(scene.stream, name)
                    nursery.start_soon(scene.insist, "dave")
                log = exported(tmp_path / "chat.db")
                for number in range(2):
                    await scene.tail_once(number, 60, partial(reached, scene.output(number), len(log)))
                network.cancel_scope.cancel()
    print(f"{cutter.cuts} cuts, {len(log)} messages, {scene.kills} kills, {scene.retries} retries")
    for name, said in scene.said.items():
        assert [text for author, text in log if author == name] == said, name
    for frames in (scene.frames(0), scene.frames(1)):
        told = [
            (frame["data"]["username"], frame["data"]["text"])
            for frame in frames
            if frame["event"] == "message"
        ]
        assert told == log
        assert Counter(frame["event"] for frame in frames).keys() <= {"message", "gap"}


def reached(output: Path, last: int) -> bool:
    """Whether the record `last` was written."""
    return f'"id":{last},' in output.read_text()


def exported(database: Path) -> list[tuple[str, str]]:
    """Who has said what, in the order of the log."""
    done = subprocess.run(
        [*python_command(), "export", "--db", str(database), "general"],
        env=clean_environment(measured=False), capture_output=True, check=True, text=True,
    )  # fmt: skip
    frames = [json.loads(line) for line in done.stdout.splitlines()]
    return [
        (frame["data"]["username"], frame["data"]["text"]) for frame in frames if frame["event"] == "message"
    ]
