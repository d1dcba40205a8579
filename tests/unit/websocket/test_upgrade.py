"""The library's answer to a handshake, in memory."""

import pytest
import trio
import trio.testing

from chatroom.websocket.upgrade import answer_handshake
from tests.support.client_frames import HANDSHAKE

OFFER = b"\r\nSec-WebSocket-Protocol: chatroom.v1\r\n\r\n"


@pytest.mark.parametrize("subprotocol", [None, "chatroom.v1"])
async def test_a_handshake_is_answered_and_the_library_let_go(
    subprotocol: str | None, autojump_clock: trio.testing.MockClock
) -> None:
    before = trio.lowlevel.current_statistics().tasks_living
    answer = await answer_handshake(HANDSHAKE.replace(b"\r\n\r\n", OFFER), subprotocol)
    assert answer.startswith(b"HTTP/1.1 101 ")
    assert answer.endswith(b"\r\n\r\n")
    assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in answer, "the example of RFC 6455, section 1.3"
    assert (b"chatroom.v1" in answer) == (subprotocol is not None)
    assert trio.lowlevel.current_statistics().tasks_living == before


async def test_it_can_be_cancelled(autojump_clock: trio.testing.MockClock) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await answer_handshake(HANDSHAKE, None)
    assert scope.cancelled_caught


async def test_what_follows_the_handshake_is_none_of_the_librarys_business() -> None:
    """It would drop bytes that came early: it is given the head alone, and nothing of it stays behind."""
    answers = [await answer_handshake(HANDSHAKE, None) for _ in range(2)]
    assert answers[0] == answers[1]
