"""The built server and a clock that is set wrong: no message grows old by it."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.client import Chat, target
from tests.support.clock import Clock
from tests.support.process import ServerProcess
from tests.support.scene import await_true

pytestmark = pytest.mark.usefixtures("pyz")


def enter(server: ServerProcess) -> Chat:
    chat = Chat(server.ws_url + target("general", "alice"))
    chat.messages(chat.welcome["replay"])
    return chat


def say(chat: Chat, *texts: str) -> list[dict[str, Any]]:
    for text in texts:
        chat.say(text)
    return chat.messages(len(texts))


def kept(chat: Chat) -> list[str]:
    page = chat.ask("history", limit=200)["data"]
    return [message["text"] for message in page["messages"]]


def doubts(server: ServerProcess) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in server.stderr.splitlines()]
    return [line for line in lines if line["event"] == "clock_doubted"]


def test_a_clock_that_jumps_forward_and_back_removes_nothing(tmp_path: Path) -> None:
    """The count has the room looked at, so that the test needn't wait for the next sweep."""
    clock = Clock(tmp_path)
    with ServerProcess("--retain", "90d,5", "--rate", "0", cwd=tmp_path, env=clock.environment) as server:
        alice = enter(server)
        (first,) = say(alice, "1")
        say(alice, "2", "3", "4", "5")
        clock.set(days=200)
        (late,) = say(alice, "6")
        assert late["ts"] - first["ts"] > 199 * 86_400_000, "the server's clock has jumped"
        await_true(lambda: kept(alice)[0] == "2", "the room was looked at")
        assert kept(alice) == ["2", "3", "4", "5", "6"]
        await_true(lambda: doubts(server), "the doubt is told")
        assert [each["wait"] for each in doubts(server)] == [None]
        clock.set(days=-200)
        say(alice, "7")
        await_true(lambda: kept(alice)[0] == "3", "the room was looked at")
        clock.set(days=0)
        say(alice, "8")
        await_true(lambda: kept(alice)[0] == "4", "the room was looked at")
        assert kept(alice) == ["4", "5", "6", "7", "8"]
        alice.close()
        assert server.stop() == 0


def test_a_clock_that_is_wrong_at_the_start_is_doubted(tmp_path: Path) -> None:
    clock = Clock(tmp_path)
    for days in (0, 200, 0):
        clock.set(days=days)
        with ServerProcess("--retain", "90d", cwd=tmp_path, env=clock.environment) as server:
            alice = enter(server)
            if not days:
                say(alice, "first")
                assert doubts(server) == []
            else:
                await_true(lambda server=server: doubts(server), "the doubt is told")
                (doubt,) = doubts(server)
                assert abs(doubt["ahead"] - days * 86400) < 600
                assert 3000 < doubt["wait"] <= 3600
            assert kept(alice)[0] == "first"
            alice.close()
            assert server.stop() == 0
