"""system.patterns: a search ends, whatever the text."""

import re
import signal
import time

from chatroom.system.patterns import found_in_time


def test_it_tells_whether_a_pattern_is_found() -> None:
    assert found_in_time(re.compile("b+"), "abbc", 10) is True
    assert found_in_time(re.compile("^b"), "abbc", 10) is False


def test_a_search_that_takes_too_long_is_given_up() -> None:
    began = time.monotonic()
    assert found_in_time(re.compile("^(a+)+$"), "a" * 60 + "!", 0.05) is None
    assert time.monotonic() - began < 5


def test_it_leaves_no_alarm_behind() -> None:
    before = signal.getsignal(signal.SIGALRM)
    for text in ("aaa", "a" * 60 + "!"):
        found_in_time(re.compile("^(a+)+$"), text, 0.05)
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
        assert signal.getsignal(signal.SIGALRM) is before
