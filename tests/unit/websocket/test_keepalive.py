"""The keepalive's clock: a ping in each interval, and an end where none is answered."""

import pytest

from chatroom.core.limits import Limits
from chatroom.websocket.keepalive import Pulse, Silent

LIMITS = Limits(ping_interval=20.0, ping_timeout=15.0)


def test_a_ping_is_due_an_interval_after_the_last_bytes_in_or_the_last_ping() -> None:
    pulse = Pulse(LIMITS, 100.0)
    assert pulse.wait(100.0) == 20.0
    pulse.hear(110.0)
    assert pulse.wait(115.0) == 15.0
    pulse.beat()
    assert pulse.wait(115.0) == 15.0, "what goes out puts nothing off"
    assert pulse.wait(130.0) == 0.0
    assert pulse.wait(999.0) == 0.0, "without a ping nobody is given up"
    pulse.ping(130.0)
    pulse.beat()
    assert pulse.wait(131.0) == 19.0


def test_an_unanswered_ping_ends_in_silence() -> None:
    pulse = Pulse(LIMITS, 100.0)
    pulse.ping(120.0)
    assert pulse.wait(121.0) == 14.0
    with pytest.raises(Silent, match="15 seconds"):
        pulse.wait(135.0)


def test_pings_go_on_while_the_first_is_not_answered_and_put_off_nothing() -> None:
    pulse = Pulse(Limits(ping_interval=2.0, ping_timeout=15.0), 100.0)
    for now in range(102, 116, 2):
        assert pulse.wait(now) == 0.0
        pulse.ping(now)
    assert pulse.wait(116.5) == 0.0
    with pytest.raises(Silent):
        pulse.wait(117.0)


def test_any_life_answers_a_ping() -> None:
    pulse = Pulse(LIMITS, 100.0)
    for answer in (pulse.beat, lambda: pulse.hear(134.0)):
        pulse.ping(120.0)
        answer()
        assert pulse.wait(136.0) in (4.0, 18.0)


def test_an_answer_may_come_from_when_somebody_listens() -> None:
    pulse = Pulse(LIMITS, 100.0)
    pulse.listen(110.0)
    assert pulse.wait(110.0) == 10.0, "no answer is awaited"
    pulse.ping(120.0)
    pulse.listen(134.0)
    assert pulse.wait(140.0) == 0.0
    pulse.ping(140.0)
    with pytest.raises(Silent):
        pulse.wait(149.0)
