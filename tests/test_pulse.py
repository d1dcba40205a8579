"""The keepalive's clock: it stands still while nobody listens."""

import pytest

from chatroom.pure.pulse import Pulse, Silent
from chatroom.values.limits import Limits

LIMITS = Limits(ping_interval=20.0, ping_timeout=15.0)


def listening(now: float = 100.0) -> Pulse:
    pulse = Pulse(LIMITS, now)
    pulse.listen(now)
    return pulse


def test_a_ping_is_due_after_the_interval_without_life() -> None:
    pulse = listening()
    assert pulse.wait(100.0) == 20.0
    pulse.beat(110.0)
    assert pulse.wait(115.0) == 15.0
    assert pulse.wait(130.0) == 0.0
    assert pulse.wait(999.0) == 0.0, "without a ping nobody is given up"


def test_an_unanswered_ping_ends_in_silence() -> None:
    pulse = listening()
    pulse.ping(120.0)
    assert pulse.wait(121.0) == 14.0
    with pytest.raises(Silent, match="15 seconds"):
        pulse.wait(135.0)


def test_while_an_answer_is_awaited_the_clock_is_looked_at_once_in_an_interval() -> None:
    """The answer comes without a word to the clock, and the next ping is due an interval after it."""
    pulse = Pulse(Limits(ping_interval=2.0, ping_timeout=15.0), 100.0)
    pulse.listen(100.0)
    pulse.ping(102.0)
    assert pulse.wait(102.0) == 2.0
    assert pulse.wait(116.5) == 0.5
    pulse.beat(102.1)
    assert pulse.wait(104.0) == pytest.approx(0.1)


def test_any_life_answers_a_ping() -> None:
    pulse = listening()
    pulse.ping(120.0)
    pulse.beat(134.0)
    assert pulse.wait(136.0) == 18.0


def test_time_without_a_listener_does_not_count() -> None:
    pulse = Pulse(LIMITS, 100.0)
    assert pulse.wait(500.0) == 20.0, "nobody has listened yet"
    assert pulse.listen(500.0) == 400.0
    assert pulse.listen(501.0) == 0.0
    assert pulse.wait(510.0) == 10.0
    pulse.ping(520.0)
    pulse.stop(525.0)
    assert pulse.wait(900.0) == 10.0
    assert pulse.listen(900.0) == 375.0
    assert pulse.wait(905.0) == 5.0
    with pytest.raises(Silent):
        pulse.wait(910.0)


def test_life_seen_while_nobody_listens_counts_as_now() -> None:
    pulse = listening()
    pulse.stop(115.0)
    pulse.beat(400.0)
    pulse.listen(500.0)
    assert pulse.wait(500.0) == 20.0
