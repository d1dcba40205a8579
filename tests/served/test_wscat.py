"""Two people at the real wscat: what they type and what they see, character by character."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.process import ServerProcess
from tests.support.wscat import Wscat

CONNECTED = "Connected (press CTRL+C to quit)"


@pytest.fixture(scope="module")
def server(pyz: Path) -> Iterator[ServerProcess]:
    with ServerProcess("--db", "none") as running:
        assert running.command[1] == str(pyz)
        yield running


def steady(line: str) -> str:
    """The line with what differs from run to run named instead: times and epochs."""
    return re.sub(r'"epoch":"[^"]+"', '"epoch":"E"', re.sub(r'"ts":\d+', '"ts":T', line))


def message(username: str, text: str, number: int) -> str:
    """The line that everybody in the room sees."""
    data = f'{{"username":"{username}","text":"{text}"}}'
    return f'< {{"event":"message","data":{data},"room":"general","id":{number},"ts":T}}'


def test_two_people_talk(server: ServerProcess) -> None:
    with Wscat(f"{server.ws_url}/?token=token-alice&username=alice") as alice:
        alice.wait_for('"welcome"')
        with Wscat(f"{server.ws_url}/?token=token-bob&username=bob") as bob:
            bob.wait_for('"welcome"')
            alice.wait_for('"joined"')
            alice.enter('{"event":"message","data":{"text":"hello"}}')
            bob.wait_for('"text":"hello"')
            bob.enter('{"event":"message","data":{"text":"hello alice"}}')
            bob.wait_for('"text":"hello alice"', 2)
            assert [steady(line) for line in bob.lines] == [
                CONNECTED,
                '< {"event":"welcome","data":{"message":"Welcome to #general, bob!","members":["alice"]},'
                '"room":"general","username":"bob","epoch":"E","last_id":0,"replay":0,'
                '"limits":{"text":4000,"frame":65536,"rate":5,"burst":20,"unanswered":32}}',
                message("alice", "hello", 1),
                '> {"event":"message","data":{"text":"hello alice"}}',
                message("bob", "hello alice", 2),
            ]
            assert bob.interrupt() == 0
        alice.wait_for('"left"')
        assert [steady(line) for line in alice.lines] == [
            CONNECTED,
            '< {"event":"welcome","data":{"message":"Welcome to #general, alice!","members":[]},'
            '"room":"general","username":"alice","epoch":"E","last_id":0,"replay":0,'
            '"limits":{"text":4000,"frame":65536,"rate":5,"burst":20,"unanswered":32}}',
            '< {"event":"joined","data":{"username":"bob"},"room":"general"}',
            '> {"event":"message","data":{"text":"hello"}}',
            message("alice", "hello", 1),
            message("bob", "hello alice", 2),
            '< {"event":"left","data":{"username":"bob"},"room":"general"}',
        ]


def test_rooms_are_switched_by_hand(server: ServerProcess) -> None:
    with Wscat(f"{server.ws_url}/?token=token-carol&username=carol&room=one") as carol:
        carol.wait_for('"welcome"')
        carol.enter('{"event":"switch_room","data":{"room":"two"}}')
        line = carol.wait_for('"switched"')
    assert steady(line) == (
        '< {"event":"switched","data":{"room":"two"},"members":[],"epoch":"E","last_id":0,"replay":0}'
    )


def test_mistakes_are_answered_and_the_connection_stays(server: ServerProcess) -> None:
    with Wscat(f"{server.ws_url}/?token=dev-token&username=dave&room=mistakes") as dave:
        dave.wait_for('"welcome"')
        dave.enter("hello")
        dave.wait_for('< {"event":"error","data":{"message":"Invalid JSON"},"code":"bad_json"}')
        dave.enter('{"event":"dance"}')
        dave.wait_for('< {"event":"error","data":{"message":"Unknown event: dance"},"code":"bad_event"}')
        dave.enter('{"event":"ping"}')
        dave.wait_for('< {"event":"pong","data":{}}')


@pytest.mark.parametrize("query", ["?token=wrong", "", "?token="])
def test_a_bad_token_is_answered_401(server: ServerProcess, query: str) -> None:
    with Wscat(f"{server.ws_url}/{query}") as stranger:
        stranger.wait_for("error: Unexpected server response: 401")
        assert stranger.process.wait(stranger.timeout) != 0


def test_a_token_in_a_header(server: ServerProcess) -> None:
    with Wscat(f"{server.ws_url}/?username=erin", "-H", "Authorization: Bearer dev-token") as erin:
        assert "Welcome to #general, erin!" in erin.wait_for('"welcome"')


def test_a_stop_tells_everybody_why(pyz: Path) -> None:
    with (
        ServerProcess("--db", "none") as server,
        Wscat(f"{server.ws_url}/?token=dev-token") as someone,
    ):
        someone.wait_for('"welcome"')
        assert server.stop() == 0
        line = someone.wait_for("Disconnected")
    assert line.startswith("Disconnected (code: 1012, reason: ")
    assert not line.endswith('reason: "")')
