"""A session decides: what is a reply, what others carry out, what is forbidden, and when it is enough."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatroom.auth.rights import Rights
from chatroom.core.errors import CloseCode, CommandError, Disconnect, ErrorCode
from chatroom.core.limits import Limits
from chatroom.protocol.codec import Authenticate, ListMembers, Post, ReadHistory, SwitchRoom, Typing
from chatroom.protocol.session import Decision, Reply, Session, TypingGate

FREE = Rights.everything()
READER = Rights.parse({"general": "r", "ops": "r"})
WRITER = Rights.parse({"general": "w", "ops": "w"})
NOBODY = Rights.parse({})
LIMITS = Limits()


def session(rights: Rights = FREE, limits: Limits = LIMITS) -> Session:
    return Session("alice", "general", rights, limits)


def text(event: str, cid: str | None = None, **data: object) -> str:
    return json.dumps({"event": event, "data": data} | ({} if cid is None else {"cid": cid}))


def ack(cid: str) -> Reply:
    return Reply(f'{{"event":"ack","data":{{}},"cid":"{cid}"}}'.encode())


@pytest.mark.parametrize(
    ("command", "decision"),
    [
        (text("ping"), Reply(b'{"event":"pong","data":{}}')),
        (text("ping", "p"), Reply(b'{"event":"pong","data":{},"cid":"p"}')),
        (text("message", text=" hi "), Post("hi", None)),
        (text("message", "c", text="hi"), Post("hi", "c")),
        (text("message", text=" "), None),
        (text("typing", active=True), Typing(True, None)),
        (text("typing", "t", active=False), Typing(False, "t")),
        (text("members", "m"), ListMembers("m")),
        (text("history", before=9), ReadHistory(9, None, 50, None)),
        (text("auth", "a", token="t"), Authenticate("t", "a")),
        (text("switch_room", "s", room="ops"), SwitchRoom("ops", None, None, "s")),
        (text("switch_room", room="ops", since=4, epoch="e"), SwitchRoom("ops", 4, "e", None)),
        (text("switch_room", room="general"), None),
        (text("switch_room", since=4, epoch="e"), None),
        (text("switch_room", "s"), ack("s")),
    ],
)
def test_a_command_of_one_who_may_do_all_is_decided(command: str, decision: Decision | None) -> None:
    assert session().decide(command, 0.0) == decision


def test_a_command_without_a_case_is_never_passed_on() -> None:
    """The type checker finds it first; here it is one that the types don't know."""
    with pytest.raises(AssertionError):
        session()._judge(object(), 0.0)  # type: ignore[arg-type]


READING = [text("members", "c"), text("history", "c")]
WRITING = [text("message", "c", text="hi"), text("typing", "c", active=True)]
ASKING_NOTHING = [text("ping", "c"), text("auth", "c", token="t"), text("switch_room", "c", room="general")]


@pytest.mark.parametrize(
    ("rights", "allowed", "forbidden"),
    [
        (READER, [*READING, *ASKING_NOTHING, text("switch_room", "c", room="ops")], WRITING),
        (WRITER, [*WRITING, *ASKING_NOTHING], [*READING, text("switch_room", "c", room="ops")]),
        (NOBODY, ASKING_NOTHING, [*READING, *WRITING, text("switch_room", "c", room="ops")]),
        (FREE, [*READING, *WRITING, *ASKING_NOTHING, text("switch_room", "c", room="ops")], []),
    ],
)
def test_a_command_needs_its_right(rights: Rights, allowed: list[str], forbidden: list[str]) -> None:
    for command in allowed:
        assert session(rights).decide(command, 0.0) is not None
    for command in forbidden:
        with pytest.raises(CommandError) as caught:
            session(rights).decide(command, 0.0)
        assert (caught.value.code, caught.value.cid, caught.value.field) == (ErrorCode.FORBIDDEN, "c", None)


def test_rights_count_for_the_room_that_the_client_is_in() -> None:
    here = session(Rights.parse({"general": "rw", "ops": "r"}))
    assert here.decide(text("message", text="hi"), 0.0) == Post("hi", None)
    here.room = "ops"
    with pytest.raises(CommandError):
        here.decide(text("message", text="hi"), 0.0)
    assert here.decide(text("history"), 0.0) is not None


def test_asking_for_a_switch_does_not_change_the_room_and_a_refused_one_changes_nothing() -> None:
    here = session(Rights.parse({"general": "rw", "ops": "r"}))
    here.decide(text("switch_room", room="ops"), 0.0)
    assert here.room == "general"
    with pytest.raises(CommandError):
        here.decide(text("switch_room", room="secret"), 0.0)
    assert here.room == "general"
    assert here.decide(text("message", text="still here"), 0.0) == Post("still here", None)


def test_rights_taken_anew_count_from_the_next_command() -> None:
    here = session()
    here.rights = READER
    with pytest.raises(CommandError):
        here.decide(text("message", text="hi"), 0.0)


def test_a_text_may_be_as_long_as_the_limits_say() -> None:
    here = session(limits=replace(LIMITS, text_chars=3))
    assert here.decide(text("message", text="abc"), 0.0) == Post("abc", None)
    with pytest.raises(CommandError) as caught:
        here.decide(text("message", text="abcd"), 0.0)
    assert caught.value.code == ErrorCode.TOO_LONG


# Faults

BAD = ["nonsense", '{"event":"nonsense"}', '{"event":"typing"}']


def fault(here: Session, now: float, command: str = BAD[0]) -> None:
    with pytest.raises(CommandError):
        here.decide(command, now)


def enough(here: Session, now: float, command: str = BAD[0]) -> Disconnect:
    with pytest.raises(Disconnect) as caught:
        here.decide(command, now)
    return caught.value


def test_of_malformed_frames_ten_are_answered_and_the_next_one_ends_the_connection() -> None:
    here = session()
    for number in range(10):
        fault(here, number * 5.9, BAD[number % 3])
    why = enough(here, 59.9)
    assert (why.code, why.reason) == (CloseCode.POLICY, "too many malformed frames")


def test_malformed_frames_are_forgotten_after_a_minute() -> None:
    here = session()
    for number in range(10):
        fault(here, float(number))
    fault(here, 60.0)  # the first one is a minute old
    enough(here, 60.5)


def test_one_every_six_seconds_can_go_on_for_ever() -> None:
    here = session()
    for number in range(200):
        fault(here, number * 6.0)


def test_what_a_sound_client_may_come_across_is_no_fault() -> None:
    here = session(READER, replace(LIMITS, text_chars=3))
    for _ in range(50):
        fault(here, 0.0, text("message", text="hi"))  # forbidden
        fault(here, 0.0, text("message", text="abcd"))  # too long
        assert here.decide(text("ping"), 0.0) is not None
    for _ in range(10):
        fault(here, 0.0)
    enough(here, 0.0)


# Typing


def passed(script: list[tuple[float, bool]]) -> list[float]:
    gate = TypingGate()
    return [now for now, active in script if gate.passes(active, now)]


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ([(0, True), (1, True), (2.4, True), (2.5, True)], [0, 2.5]),
        ([(0, True), (2, True), (3.5, True), (5.9, True), (6, True)], [0, 3.5, 6]),
        # Every three seconds by a clock or over a network that isn't even: all of them.
        ([(0, True), (3, True), (5.99, True), (9.01, True), (11.8, True)], [0, 3, 5.99, 9.01, 11.8]),
        ([(0, True), (1, False), (1.5, True)], [0, 1, 1.5]),
        ([(0, False), (0.1, False)], [0, 0.1]),  # a mark is taken away in any case
        ([(0, True), (0.1, False), (0.2, True), (0.3, False), (0.4, True), (0.5, False)], [0, 0.1, 0.2, 0.3]),
        ([(0, False)] * 9 + [(2.9, True), (3, True)], [0, 0, 0, 0, 3]),
        # A `false` that came between counts, though it was not passed on itself.
        ([(0, False), (1, False), (2, False), (2.5, True), (2.9, False), (3.1, True)], [0, 1, 2, 2.5, 3.1]),
    ],
)
def test_typing_is_passed_on_as_often_as_others_want_to_see_it(
    script: list[tuple[float, bool]], expected: list[float]
) -> None:
    assert passed(script) == expected


@given(st.lists(st.tuples(st.integers(0, 20).map(lambda tenth: tenth / 8), st.booleans()), max_size=60))
def test_typing_follows_both_rules_and_no_other(steps: list[tuple[float, bool]]) -> None:
    gate = TypingGate()
    now, told, last_true, between = 100.0, [], float("-inf"), True
    for pause, active in steps:
        now += pause
        between = between or not active
        owed = not active or between or now - last_true >= 2.5
        room = sum(now - time < 3 for time in told) < 4
        assert gate.passes(active, now) == (owed and room)
        if owed and room:
            told.append(now)
            if active:
                last_true, between = now, False


def test_typing_that_is_dropped_is_acknowledged_all_the_same() -> None:
    here = session()
    assert here.decide(text("typing", "a", active=True), 0.0) == Typing(True, "a")
    assert here.decide(text("typing", "b", active=True), 1.0) == ack("b")
    assert here.decide(text("typing", active=True), 1.0) is None
