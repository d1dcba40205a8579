"""Clients of several nodes while their store is away, and when it is back.

In each test sockets stay open, commands that need the store are answered in time and others at once,
`/readyz` says why, the chat goes on by itself, and no client is told of joins or leaves that weren't.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from itertools import pairwise
from typing import Any

import pytest
import redis

from tests.support.client import Chat
from tests.support.relay import Relay
from tests.support.scene import Served, await_true, check_clean
from tests.support.several import (
    PRESENCE,
    PROMISED,
    Arrival,
    Question,
    await_ready,
    come,
    logged,
    reasons,
    say_until_stored,
    several,
    until_listed,
)
from tests.support.stores import Kind, Store, Stores

pytestmark = pytest.mark.usefixtures("pyz")

NEEDING = ("message", "history", "switch", "join", "resume")
SLOW = "key-load-delay 250"
AT_ONCE = 1.0
"""Seconds, on a busy machine, for what doesn't need the store."""
STEADY = ("alice", "bob", "carol", "dan", "eve")


class Party:
    """Five people in one room on two nodes, and what they ask while the store is away."""

    def __init__(self, one: Served, two: Served) -> None:
        self.nodes = (one, two)
        self.alice, self.carol, self.eve = (come(one, "den", name) for name in ("alice", "carol", "eve"))
        self.bob, self.dan = (come(two, "den", name) for name in ("bob", "dan"))
        self.all = (self.alice, self.bob, self.carol, self.dan, self.eve)
        for chat in self.all:
            await_true(lambda chat=chat: self._knows_all(chat), "all know all")  # type: ignore[misc]
        self.epoch: str = self.alice.welcome["epoch"]
        say_until_stored(self.alice, "before", "before")
        for chat in self.all:
            chat.settle()
        self._rounds = 0

    @staticmethod
    def _knows_all(chat: Chat) -> bool:
        return len(Question(chat, "members", "all").answer()["data"]["members"]) == len(STEADY)

    def ask(self, patience: float) -> dict[str, str | int]:
        """What becomes of all that needs the store, asked at the same time; the rest is answered within
        `patience`."""
        self._rounds += 1
        return self.ask_of(self._rounds, patience)

    def ask_of(self, number: int, patience: float = PROMISED) -> dict[str, str | int]:
        """The same as in the round `number`, by which the new rooms are called."""
        one, two = self.nodes
        new = f"new-{number}"
        arrivals = {
            "join": Arrival(two, new, "zoe"),
            "resume": Arrival(one, f"{new}-too", "zoe", since=0, epoch=self.epoch),
        }
        needing = {
            "message": Question(self.alice, "message", "m", text="meanwhile"),
            "history": Question(self.bob, "history", "h"),
            "switch": Question(self.carol, "switch_room", "s", room=new),
        }
        others = [
            Question(chat, event, event, **data)
            for chat in (self.dan, self.eve)
            for event, data in (("ping", {}), ("typing", {"active": True}), ("members", {}))
        ]
        for question in others:
            assert question.answer(within=patience)["event"] in ("pong", "ack", "members")
        return {name: question.code() for name, question in needing.items()} | {
            name: arrival.end() for name, arrival in arrivals.items()
        }


def check_changes(node: Served, *expected: str) -> None:
    """The log has a line for each change, and no other."""
    lines = logged(node, "store_lost", "store_back", "store_refused", "append_refused")
    said = [line.get("reason", line["event"]) for line in lines]
    assert said[-1] == "store_back", said
    assert said.count("store_back") == 1, said
    assert set(said[:-1]) <= set(expected), said
    assert all(former != latter for former, latter in pairwise(said)), said


Fault = Callable[[Store], AbstractContextManager[None]]


@contextmanager
def killed(store: Store) -> Iterator[None]:
    store.kill()
    yield
    store.start()


@contextmanager
def frozen(store: Store) -> Iterator[None]:
    store.freeze()
    yield
    store.thaw()


@contextmanager
def loading(store: Store) -> Iterator[None]:
    make_slow(store)
    store.kill()
    load_slowly(store)
    yield
    load_at_once(store)


def make_slow(store: Store) -> None:
    """Fill it with so much that it loads for a while, in the configuration of these tests."""
    with store.client().pipeline(transaction=False) as pipeline:
        for number in range(25_000):
            pipeline.set(f"key{number}", number)
        pipeline.execute()


def load_slowly(store: Store) -> None:
    """Start it, and wait until it says that it loads."""
    store.start(wait=False)
    with closing(store.client()) as client:

        def loads() -> bool:
            try:
                client.ping()
            except redis.BusyLoadingError:
                return True
            except redis.ConnectionError:
                return False
            raise AssertionError("it has loaded already")

        await_true(loads, "it loads")


def load_at_once(store: Store) -> None:
    store.kill()
    file = store.folder / "server.conf"
    file.write_text(file.read_text().replace(SLOW, ""))
    store.start()


@contextmanager
def busy(store: Store) -> Iterator[None]:
    with closing(store.client(socket_timeout=20)) as client:
        connection = client.connection_pool.get_connection()
        connection.send_command("EVAL", "while true do end", 0)
        yield
        store.client().execute_command("SCRIPT KILL")
        connection.disconnect()


@contextmanager
def full(store: Store) -> Iterator[None]:
    store.config_set("maxmemory", 1)
    yield
    store.config_set("maxmemory", 0)


@contextmanager
def locked(store: Store) -> Iterator[None]:
    """As when its password was changed, and the nodes' wasn't."""
    store.config_set("requirepass", "changed")
    store.ask("CLIENT", "KILL", "TYPE", "PUBSUB")
    store.ask("CLIENT", "KILL", "TYPE", "NORMAL", "SKIPME", "yes")
    yield
    store.config_set("requirepass", "")


@contextmanager
def crowded(store: Store) -> Iterator[None]:
    store.config_set("maxclients", 1)
    store.ask("CLIENT", "KILL", "TYPE", "PUBSUB")
    store.ask("CLIENT", "KILL", "TYPE", "NORMAL", "SKIPME", "yes")
    yield
    store.config_set("maxclients", 1000)


@contextmanager
def without_replicas(store: Store) -> Iterator[None]:
    store.config_set("min-replicas-to-write", 1)
    yield
    store.config_set("min-replicas-to-write", 0)


@contextmanager
def demoted(store: Store) -> Iterator[None]:
    store.ask("REPLICAOF", "127.0.0.1", "1")
    yield
    store.ask("REPLICAOF", "NO", "ONE")


UNREACHABLE = "the store can't be reached"
SILENT = "the store does not answer"
NOTHING = dict.fromkeys(NEEDING, "unavailable") | {"join": 1011, "resume": 1011}
FINE = {
    "message": "ack",
    "history": "history",
    "switch": "switched",
    "join": "welcome",
    "resume": "welcome",
}
UNSTORED = FINE | {"message": "unavailable"}


@pytest.mark.parametrize(
    ("kind", "fault", "reason", "codes"),
    [
        pytest.param(kind, *row, id=f"{row[0].__name__}-{kind}")
        for kinds, *row in (
            ((Kind.VALKEY,), killed, UNREACHABLE, NOTHING),
            ((Kind.VALKEY,), frozen, SILENT, NOTHING),
            ((Kind.REDIS,), loading, "the store is loading its data", NOTHING),
            (Kind, busy, "the store is busy with a script", NOTHING),
            (Kind, demoted, "the store is read-only (a replica)", NOTHING),
            (Kind, full, "the store's memory is full", UNSTORED),
            ((Kind.VALKEY,), locked, "the store refuses the user or the password", NOTHING),
            ((Kind.VALKEY,), crowded, "the store has too many clients", NOTHING),
            (
                Kind,
                without_replicas,
                "too few of the store's replicas are connected",
                NOTHING | {"history": "history"},
            ),
        )
        for kind in kinds
    ],
)
def test_while_it_is_away_all_is_answered_and_nobody_comes_or_goes(
    fault: Fault, reason: str, codes: dict[str, Any], stores: Stores
) -> None:
    store = stores.start("busy-reply-threshold 50", SLOW)
    with several(store.url, store.url) as (one, two):
        party = Party(one, two)
        with fault(store):
            first = party.ask(PROMISED)
            for node in (one, two):
                await_true(lambda node=node: reasons(node) == (503, [reason]), lambda node=node: node.stderr)  # type: ignore[misc]
            assert party.ask(AT_ONCE) == codes
            # What was on its way at the first moment may have got through.
            assert first == codes | {"history": first["history"]}
        await_ready(one, two)
        number = say_until_stored(party.alice, "meanwhile", "m")
        last = say_until_stored(party.bob, "after", "a")
        assert last == number + 1 == 3
        moved = {"carol"} if codes["switch"] == "switched" else set()
        for chat in (party.alice, party.bob, party.dan, party.eve):
            told = {frame["data"].get("username") for frame in chat.settle() if frame["event"] in PRESENCE}
            assert told <= moved
        assert party.ask(PROMISED) == FINE
        assert party.ask_of(1) == FINE
        for node in (one, two):
            check_clean(node)
            assert node.stop() == 0
            check_changes(node, reason, UNREACHABLE, SILENT)


def test_a_store_that_loads_is_not_said_to_be_back_also_where_nobody_asks_it_anything(stores: Stores) -> None:
    """The subscription can be had again before commands can."""
    store = stores.start(SLOW)
    with several(store.url) as (node,):
        alice = come(node, "den", "alice")
        say_until_stored(alice, "before", "b")
        make_slow(store)
        alice.settle()
        time.sleep(2)  # a connection that has been well for so long is made anew at once
        store.kill()
        store.start(wait=False)
        await_true(lambda: reasons(node)[0] == 503, lambda: node.stderr)
        for _ in range(100):
            assert reasons(node)[0] == 503, node.stderr
            time.sleep(0.02)
        load_at_once(store)
        await_ready(node)
        check_clean(node)
        assert node.stop() == 0
        check_changes(node, "the store is loading its data", UNREACHABLE, SILENT)


def test_a_store_that_is_slow_does_all_and_one_that_is_too_slow_is_away(stores: Stores) -> None:
    store = stores.start()
    with Relay(store.port) as link, several(store.url, f"redis://127.0.0.1:{link.port}") as (one, two):
        ann = come(one, "den", "ann")
        ben, cy, di = (come(two, "den", name) for name in ("ben", "cy", "di"))

        def ask(number: int) -> list[str]:
            questions = [
                Question(ben, "message", f"m{number}", text=f"said {number}"),
                Question(cy, "history", "h"),
                Question(di, "switch_room", "s", room=f"new-{number}"),
            ]
            return [question.code() for question in questions]

        link.delay = 0.15
        assert ask(1) == ["message", "history", "switched"]
        assert reasons(two) == (200, [])
        link.delay = 1.5
        assert ask(2) == ["unavailable"] * 3
        await_true(lambda: reasons(two)[0] == 503, lambda: two.stderr)
        assert ask(3) == ["unavailable"] * 3
        assert reasons(one) == (200, [])
        link.delay = 0
        await_ready(two)
        assert ask(4) == ["message", "history", "switched"]
        for number in (2, 3):
            say_until_stored(ben, f"said {number}", f"m{number}")
        assert sorted(frame["cid"] for frame in ann.messages(4)) == ["m1", "m2", "m3", "m4"]
        until_listed(ann, "ann", "ben", "cy")
        for node in (one, two):
            check_clean(node)
            assert node.stop() == 0
