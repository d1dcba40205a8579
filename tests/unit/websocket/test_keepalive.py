"""The keepalive's clock: a ping in each interval, and an end where none is answered."""

import pytest

from chatroom.core.limits import Limits
from chatroom.websocket.keepalive import Keepalive, KeepaliveTimeout

LIMITS = Limits(ping_interval=20.0, ping_timeout=15.0)


def test_a_ping_is_due_an_interval_after_the_last_bytes_in_or_the_last_ping() -> None:
    keepalive = Keepalive(LIMITS, 100.0)
    assert keepalive.wait(100.0) == 20.0
    keepalive.on_bytes(110.0)
    assert keepalive.wait(115.0) == 15.0
    keepalive.on_progress()
    assert keepalive.wait(115.0) == 15.0, "what goes out puts nothing off"
    assert keepalive.wait(130.0) == 0.0
    assert keepalive.wait(999.0) == 0.0, "without a ping nobody is given up"
    keepalive.on_ping(130.0)
    keepalive.on_progress()
    assert keepalive.wait(131.0) == 19.0


def test_an_unanswered_ping_ends_in_silence() -> None:
    keepalive = Keepalive(LIMITS, 100.0)
    keepalive.on_ping(120.0)
    assert keepalive.wait(121.0) == 14.0
    with pytest.raises(KeepaliveTimeout, match="15 seconds"):
        keepalive.wait(135.0)


def test_pings_go_on_while_the_first_is_not_answered_and_put_off_nothing() -> None:
    keepalive = Keepalive(Limits(ping_interval=2.0, ping_timeout=15.0), 100.0)
    for now in range(102, 116, 2):
        assert keepalive.wait(now) == 0.0
        keepalive.on_ping(now)
    assert keepalive.wait(116.5) == 0.0
    with pytest.raises(KeepaliveTimeout):
        keepalive.wait(117.0)


def test_any_life_answers_a_ping() -> None:
    keepalive = Keepalive(LIMITS, 100.0)
    for answer in (keepalive.on_progress, lambda: keepalive.on_bytes(134.0)):
        keepalive.on_ping(120.0)
        answer()
        assert keepalive.wait(136.0) in (4.0, 18.0)


def test_an_answer_may_come_from_when_somebody_listens() -> None:
    keepalive = Keepalive(LIMITS, 100.0)
    keepalive.on_reading(110.0)
    assert keepalive.wait(110.0) == 10.0, "no answer is awaited"
    keepalive.on_ping(120.0)
    keepalive.on_reading(134.0)
    assert keepalive.wait(140.0) == 0.0
    keepalive.on_ping(140.0)
    with pytest.raises(KeepaliveTimeout):
        keepalive.wait(149.0)
