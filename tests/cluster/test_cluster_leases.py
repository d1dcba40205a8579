"""Nodes that are cut off, killed and stopped: which names go and which stay. All wait at the same time."""

from __future__ import annotations

import time
from contextlib import ExitStack

import pytest

from tests.support.client import Chat
from tests.support.relay import Relay
from tests.support.scene import await_true, check_clean
from tests.support.several import LEASE, PRESENCE, Question, await_ready, come, listed, reasons, several
from tests.support.stores import Stores

REAPED = 30.0
"""Seconds until the names of a node that is gone are gone elsewhere."""


class Watcher:
    """A member that hears of joins and leaves in a room."""

    def __init__(self, chat: Chat) -> None:
        self.chat = chat
        self.told: list[tuple[str, str]] = []

    def look(self) -> list[tuple[str, str]]:
        """All that it has been told of presence since the last `forget`."""
        for frame in self.chat.settle():
            if frame["event"] in PRESENCE:
                self.told.append((frame["event"], frame["data"].get("username", "")))
        return self.told

    def forget(self) -> None:
        self.look()
        self.told.clear()


@pytest.mark.usefixtures("pyz")
def test_names_of_nodes_that_are_gone_go_once_and_no_others_do(stores: Stores) -> None:
    """One node is watched from. Another is cut off, one killed, and one stopped, whose people come back.

    Meanwhile another store is away from two more nodes.
    """
    store, away = stores.start(), stores.start()
    with Relay(store.port) as link, ExitStack() as stack:
        others = stack.enter_context(several(away.url, away.url))
        watchers = [
            Watcher(come(node, "hall", name)) for node, name in zip(others, ("ann", "ben"), strict=True)
        ]
        watchers[0].chat.expect("joined", username="ben")
        away.kill()
        urls = (store.url, f"redis://127.0.0.1:{link.port}", store.url, store.url)
        well, cut_off, killed, stopped = stack.enter_context(several(*urls))
        here, there = Watcher(come(well, "den", "wanda")), Watcher(come(cut_off, "den", "cuthbert"))
        colin = come(cut_off, "den", "colin")
        stan = come(stopped, "den", "stan")
        lost = [come(killed, "den", name) for name in ("kate", "wanda")]
        everybody = ["colin", "cuthbert", "kate", "stan", "wanda"]
        for watcher in (here, there):
            await_true(lambda watcher=watcher: listed(watcher.chat) == everybody, "all are there")  # type: ignore[misc]
            watcher.forget()
        epoch = stan.welcome["epoch"]

        began = time.monotonic()
        link.part()
        killed.process.kill()
        assert stopped.stop() == 0
        assert stan.closing()[0] == 1012
        stan = come(well, "den", "stan", since=0, epoch=epoch)
        assert stan.welcome["recovered"] is True
        while time.monotonic() < began + LEASE - 6:
            assert here.look() == []
            time.sleep(0.2)
        left = began + REAPED - time.monotonic()
        await_true(lambda: len(here.look()) >= 3, lambda: str(here.told), left, 0.2)
        assert sorted(here.told) == [("left", "colin"), ("left", "cuthbert"), ("left", "kate")]
        assert listed(here.chat) == ["stan", "wanda"]
        assert reasons(cut_off) == (503, ["the store does not answer"])
        assert there.look() == []
        assert listed(there.chat) == everybody

        colin.close()
        here.told.clear()
        link.join()
        await_ready(cut_off)
        await_true(here.look, "it is back")
        await_true(lambda: listed(there.chat) == listed(here.chat), "both know the same")
        assert listed(here.chat) == ["cuthbert", "stan", "wanda"]
        assert here.look() == [("joined", "cuthbert")]
        assert ("left", "wanda") not in there.look()
        assert ("left", "stan") not in there.told
        assert ("left", "cuthbert") not in there.told
        assert Question(there.chat, "message", "m", text="back").answer()["event"] == "message"
        assert here.chat.messages(1)[0]["data"]["text"] == "back"
        # The other store was away for longer than a lease: no node there was taken for dead.
        away.start()
        await_ready(*others)
        time.sleep(1)
        for watcher in watchers:
            assert watcher.look() == []
            assert listed(watcher.chat) == ["ann", "ben"]
        for node in (well, cut_off, *others):
            check_clean(node)
            assert node.stop() == 0
        for chat in lost:
            chat.vanish()
