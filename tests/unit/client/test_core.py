"""The state of a client: each transition, what it sends and tells, and when it wants to be woken.

What holds for any order of things is in test_core_model.
"""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatroom.client.backoff import LASTED, MOST_ASKED
from chatroom.client.core import PAGE, SILENCE, Core, Dialling, State
from chatroom.client.cursor import Begin, Position
from chatroom.client.events import (
    Answered,
    Ended,
    Ending,
    Entered,
    Expiring,
    Gap,
    Lost,
    News,
    Recorded,
    Replaced,
    Settled,
    SwitchRefused,
)
from chatroom.client.outbox import RETRY_SECONDS, TOO_LARGE
from tests.unit.client.test_frames import objects

WELCOME = {
    "event": "welcome",
    "data": {"message": "Welcome!", "members": ["bob"]},
    "room": "general",
    "username": "alice",
    "epoch": "e",
    "last_id": 0,
    "replay": 0,
    "limits": {"frame": 65536},
}


class Session:
    """A core, what it tells and sends, and the time."""

    def __init__(self, begin: Begin = Begin.NOW, *, room: str = "general", **more: Any) -> None:
        self.now = 100.0
        self.core = Core(room, begin=begin, chance=lambda: 0.5, prefix="q", now=self.now, **more)

    @property
    def state(self) -> State:
        return self.core.state

    def events(self) -> list[Any]:
        return self.core.take_events()

    def frames(self) -> list[dict[str, Any]]:
        return [json.loads(text) for text in self.core.take_frames(self.now)]

    def receive(self, event: str, data: Any = None, **beside: Any) -> None:
        frame = {"event": event, "data": {} if data is None else data, **beside}
        self.core.receive(json.dumps(frame), self.now)

    def message(self, number: int, *, author: str = "bob", room: str = "general", **beside: Any) -> None:
        self.receive("message", {"username": author, "text": "hi"}, room=room, id=number, **beside)

    def error(self, cid: str, code: str = "forbidden", sentence: str = "Not allowed") -> None:
        self.receive("error", {"message": sentence}, code=code, cid=cid)

    def switched(self, room: str, cid: str, **beside: Any) -> None:
        stand = {"members": [], "epoch": "e", "last_id": 0, "replay": 0, **beside}
        self.receive("switched", {"room": room}, cid=cid, **stand)

    def say(self, cid: str, text: str = "hi") -> None:
        self.core.draft("message", {"text": text}, cid)

    def dial(self) -> Dialling:
        self.now = max(self.now, self.core.wake_at() or 0.0)
        return self.core.dial()

    def join(self) -> Dialling:
        dialling = self.dial()
        self.core.connected(self.now)
        return dialling

    def open(self, **members: Any) -> list[Any]:
        """Connected and let in; the events of it."""
        self.join()
        self.core.receive(json.dumps({**WELCOME, **members}), self.now)
        assert self.state is State.OPEN
        return self.events()

    def close(self, code: int = 1006, reason: str = "") -> None:
        self.core.closed(code, reason, self.now)

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.core.tick(self.now)


def opened(begin: Begin = Begin.NOW, **more: Any) -> Session:
    session = Session(begin, **more)
    session.open()
    return session


def in_state(state: State) -> Session:
    session = Session()
    if state is not State.WAITING:
        session.dial()
    if state in (State.JOINING, State.OPEN):
        session.core.connected(session.now)
    if state is State.OPEN:
        session.core.receive(json.dumps(WELCOME), session.now)
    if state is State.ENDED:
        session.core.stop()
    session.events()
    assert session.state is state
    return session


# The table of states


def test_it_may_be_dialled_at_once() -> None:
    session = Session()
    assert (session.state, session.core.wake_at()) == (State.WAITING, 100.0)
    assert session.dial() == Dialling("general", None)
    assert (session.state, session.core.wake_at()) == (State.DIALING, None)


def test_it_goes_on_from_a_position_that_it_was_given() -> None:
    position = Position("e", 7)
    assert Session(position=position).dial() == Dialling("general", position)


def test_connected_it_waits_for_the_welcome() -> None:
    session = Session()
    session.join()
    assert session.state is State.JOINING
    session.receive("pong")
    session.receive("message", {"username": "bob", "text": "hi"}, room="general", id=1)
    assert (session.state, session.events()) == (State.JOINING, [])


def test_the_welcome_lets_it_in() -> None:
    session = Session()
    entered = Entered("general", "alice", "e", 0, ("bob",), resumed=False)
    assert session.open() == [entered]
    assert session.core.username == "alice"


@pytest.mark.parametrize("state", [State.DIALING, State.JOINING, State.OPEN])
@pytest.mark.parametrize(
    "code", [1000, 1001, 1002, 1005, 1006, 1008, 1009, 1011, 1012, 4001, 4008, 4499, 4600, 0]
)
def test_after_a_close_it_comes_back(state: State, code: int) -> None:
    session = in_state(state)
    session.close(code)
    assert session.state is State.WAITING
    assert session.events() == [Lost(f"the connection was lost ({code})", 0.5)]
    assert session.core.wake_at() == session.now + 0.5


@pytest.mark.parametrize("state", [State.DIALING, State.JOINING, State.OPEN])
@pytest.mark.parametrize("code", [4500, 4503, 4510, 4599])
def test_some_codes_say_not_to_come_back(state: State, code: int) -> None:
    session = in_state(state)
    session.close(code)
    reason = f"sent away ({code})"
    assert (session.state, session.events()) == (State.ENDED, [Ended(Ending.REFUSED, reason)])


@pytest.mark.parametrize(
    ("code", "found"), [(1012, Lost("restart", 0.5)), (4510, Ended(Ending.REFUSED, "sent away: restart"))]
)
def test_the_reason_of_a_close_is_told(code: int, found: Any) -> None:
    session = opened()
    session.close(code, "restart")
    assert session.events() == [found]


@pytest.mark.parametrize("status", [100, 103, 408, 429, 500, 502, 503, 504, 599])
def test_refusals_that_are_no_answer_yet(status: int) -> None:
    session = in_state(State.DIALING)
    session.core.refused(status, "later", 0.0, session.now)
    assert (session.state, session.events()) == (State.WAITING, [Lost("later", 0.5)])


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 407, 409, 426, 428, 430, 431, 499])
def test_refusals_for_good(status: int) -> None:
    session = in_state(State.DIALING)
    session.core.refused(status, "no", 3.0, session.now)
    assert (session.state, session.events()) == (State.ENDED, [Ended(Ending.REFUSED, "no")])


@pytest.mark.parametrize("status", [200, 204, 301, 302, 399])
def test_what_is_no_refusal_at_all_is_no_chatroom(status: int) -> None:
    session = in_state(State.DIALING)
    session.core.refused(status, "a page", 0.0, session.now)
    assert session.events() == [Ended(Ending.ALIEN, "a page")]


def test_retry_after_is_waited_for() -> None:
    session = in_state(State.DIALING)
    session.core.refused(503, "full", 7.0, session.now)
    assert session.events() == [Lost("full", 7.5)]
    assert session.core.wake_at() == session.now + 7.5
    session.dial()
    session.core.refused(503, "full", 1e9, session.now)
    assert session.events() == [Lost("full", MOST_ASKED + 1)]


@pytest.mark.parametrize("state", State)
def test_a_stop_ends_it_wherever_it_is(state: State) -> None:
    session = in_state(state)
    session.core.stop()
    session.core.stop()
    assert session.state is State.ENDED
    assert session.events() == ([] if state is State.ENDED else [Ended(Ending.STOPPED, "")])
    assert session.core.wake_at() is None


@pytest.mark.parametrize("state", State)
def test_what_is_no_chatroom_ends_it_wherever_it_is(state: State) -> None:
    session = in_state(state)
    session.core.alien("it isn't trusted")
    assert session.state is State.ENDED
    assert session.events() == ([] if state is State.ENDED else [Ended(Ending.ALIEN, "it isn't trusted")])


@pytest.mark.parametrize("text", ["", "hello", "[]", '{"event":1,"data":{}}', '{"event":"welcome"}'])
def test_what_is_no_frame_instead_of_the_welcome_is_no_chatroom(text: str) -> None:
    session = in_state(State.JOINING)
    session.core.receive(text, session.now)
    (ended,) = session.events()
    assert ended == Ended(Ending.ALIEN, "what answers there is no chatroom")


@pytest.mark.parametrize("member", ["room", "username", "epoch", "last_id", "replay"])
def test_a_welcome_that_makes_no_sense_is_no_chatrooms(member: str) -> None:
    session = in_state(State.JOINING)
    session.core.receive(json.dumps({**WELCOME, member: None}), session.now)
    (ended,) = session.events()
    assert ended.ending is Ending.ALIEN


def test_what_is_no_frame_later_is_ignored() -> None:
    session = opened()
    session.core.receive("nothing", session.now)
    assert (session.state, session.events()) == (State.OPEN, [])


# Methods in the wrong state


@pytest.mark.parametrize("state", [State.WAITING, State.JOINING, State.OPEN, State.ENDED])
def test_a_refusal_counts_while_dialling_only(state: State) -> None:
    session = in_state(state)
    session.core.refused(401, "no", 0.0, session.now)
    session.core.refused(503, "no", 0.0, session.now)
    assert (session.state, session.events()) == (state, [])


@pytest.mark.parametrize("state", [State.WAITING, State.ENDED])
@pytest.mark.parametrize("code", [1006, 1009, 4510])
def test_a_close_without_a_connection_is_nothing(state: State, code: int) -> None:
    session = in_state(state)
    wake = session.core.wake_at()
    session.close(code)
    assert (session.state, session.events(), session.core.wake_at()) == (state, [], wake)


@pytest.mark.parametrize("state", [State.WAITING, State.OPEN, State.ENDED])
def test_connected_without_dialling_is_nothing(state: State) -> None:
    session = in_state(state)
    wake = session.core.wake_at()
    session.now += 1
    session.core.connected(session.now)
    assert (session.state, session.events(), session.core.wake_at()) == (state, [], wake)


@pytest.mark.parametrize("state", [State.WAITING, State.DIALING, State.ENDED])
def test_frames_time_and_attention_without_a_connection_are_nothing(state: State) -> None:
    session = in_state(state)
    wake = session.core.wake_at()
    session.core.receive(json.dumps(WELCOME), session.now)
    session.core.receive("nothing", session.now)
    session.wait(1000)
    session.core.listen(session.now)
    assert (session.state, session.events(), session.frames()) == (state, [], [])
    assert session.core.wake_at() == wake


@pytest.mark.parametrize("state", [State.DIALING, State.JOINING, State.OPEN, State.ENDED])
def test_there_is_one_connection_at_a_time(state: State) -> None:
    session = in_state(state)
    with pytest.raises(AssertionError, match="one connection"):
        session.core.dial()
    assert session.state is state


@pytest.mark.parametrize("state", [each for each in State if each is not State.OPEN])
def test_what_is_typed_without_a_connection_goes_nowhere(state: State) -> None:
    session = in_state(state)
    session.core.typing(True)
    assert session.frames() == []


@pytest.mark.parametrize("lost", [False, True])
def test_what_is_asked_where_no_connection_is_on_its_way_goes_nowhere(lost: bool) -> None:
    session = in_state(State.OPEN if lost else State.ENDED)
    if lost:
        session.close(1012)
        session.events()
    cid = session.core.ask("members")
    assert session.events() == [Answered(cid, None)]
    assert session.frames() == []


@pytest.mark.parametrize("state", [State.WAITING, State.DIALING, State.JOINING])
def test_what_is_asked_while_a_connection_is_on_its_way_waits_for_it(state: State) -> None:
    session = in_state(state)
    cid = session.core.ask("members")
    assert (session.events(), session.frames()) == ([], [])
    if state is State.WAITING:
        session.dial()
    if state is not State.JOINING:
        session.core.connected(session.now)
    session.core.receive(json.dumps(WELCOME), session.now)
    session.events()
    assert session.frames() == [{"event": "members", "cid": cid}]


def test_what_is_asked_behind_a_draft_is_sent_behind_it() -> None:
    session = in_state(State.OPEN)
    session.say("a")
    session.core.ask("history")
    assert [frame["event"] for frame in session.frames()] == ["message", "history"]


@pytest.mark.parametrize("state", [State.DIALING, State.JOINING])
def test_what_is_asked_of_a_connection_that_does_not_come_is_not_answered(state: State) -> None:
    session = in_state(state)
    cid = session.core.ask("members")
    session.close(1006)
    assert Answered(cid, None) in session.events()


@pytest.mark.parametrize("state", [each for each in State if each is not State.OPEN])
def test_a_draft_waits_until_there_is_a_connection(state: State) -> None:
    session = in_state(state)
    session.say("a")
    session.core.switch("ops")
    assert (session.frames(), session.core.unsettled) == ([], 1)


# Silence


def test_after_a_silence_it_pings_and_then_gives_the_connection_up() -> None:
    session = opened()
    assert session.core.wake_at() == session.now + SILENCE
    session.wait(SILENCE - 0.5)
    assert session.frames() == []
    session.wait(0.5)
    assert session.frames() == [{"event": "ping"}]
    assert session.core.wake_at() == session.now + SILENCE
    session.wait(SILENCE - 0.5)
    assert (session.state, session.frames()) == (State.OPEN, [])
    session.wait(0.5)
    assert (session.state, session.events()) == (State.WAITING, [Lost("the server is silent", 0.5)])


@pytest.mark.parametrize("text", ['{"event":"pong","data":{}}', '{"event":"new","data":{}}', "nothing"])
def test_any_frame_ends_a_silence(text: str) -> None:
    session = opened()
    for _ in range(3):
        session.wait(SILENCE)
        assert session.frames() == [{"event": "ping"}]
        session.wait(SILENCE - 0.5)
        session.core.receive(text, session.now)
        assert session.core.wake_at() == session.now + SILENCE


def test_a_server_that_lets_in_and_never_welcomes_is_given_up() -> None:
    session = in_state(State.JOINING)
    assert session.core.wake_at() == session.now + 2 * SILENCE
    session.wait(2 * SILENCE - 0.5)
    assert (session.state, session.frames()) == (State.JOINING, [])
    session.wait(0.5)
    assert session.events() == [Lost("the server is silent", 0.5)]


def test_silence_counts_anew_when_nobody_has_looked_for_a_while() -> None:
    session = opened()
    session.wait(SILENCE)
    assert session.frames() == [{"event": "ping"}]
    session.now += 1000
    session.core.listen(session.now)
    session.core.tick(session.now)
    assert (session.state, session.frames()) == (State.OPEN, [])
    assert session.core.wake_at() == session.now + SILENCE
    session.core.listen(session.now - 500)
    assert session.core.wake_at() == session.now + SILENCE


def test_each_connection_has_its_own_silence() -> None:
    session = opened()
    session.wait(SILENCE)
    session.close()
    session.now += 1000
    session.open()
    assert session.frames() == []
    session.wait(SILENCE)
    assert session.frames() == [{"event": "ping"}]


# Coming back


def test_pauses_double_until_a_connection_has_lasted() -> None:
    session = Session()
    pauses = []
    for seconds in (0, 0, LASTED - 1, LASTED, 0):
        session.open()
        session.now += seconds
        session.close()
        (lost,) = session.events()
        pauses.append(lost.seconds)
    assert pauses == [0.5, 1, 2, 0.5, 1]


@pytest.mark.parametrize("what", ["a record", "an old record", "an ack", "a page", "an answer"])
def test_pauses_begin_anew_after_a_connection_that_has_brought_something(what: str) -> None:
    session = filling()
    for _ in range(2):
        session.close()
        session.open(last_id=5, replay=1)
    session.say("a")
    message, history = session.frames()
    if what == "a record":
        answer_page(session, history["cid"], 4)
        session.message(5)
        session.close()
        session.open(last_id=5)
        session.message(6)
    elif what == "an old record":
        session.message(5)  # it is held, and comes again
    elif what == "an ack":
        session.receive("ack", {"id": 6}, cid=message["cid"])
    elif what == "a page":
        answer_page(session, history["cid"], 4)
    else:
        session.receive("pong")
    session.events()
    session.close()
    (lost,) = [event for event in session.events() if isinstance(event, Lost)]
    assert lost.seconds == (0.5 if what in {"a record", "an ack", "a page"} else 2.0)


def test_each_connection_has_to_bring_something() -> None:
    session = opened()
    session.message(1)
    session.close()
    session.open(last_id=1)
    session.close()
    session.open(last_id=1)
    session.close()
    assert [event.seconds for event in session.events() if isinstance(event, Lost)] == [2.0]


def test_only_the_time_in_which_it_was_let_in_counts() -> None:
    session = Session()
    session.join()
    session.now += 1000
    session.close()
    session.events()
    session.join()
    session.close()
    assert session.events() == [Lost("the connection was lost (1006)", 1.0)]


def test_it_goes_on_where_it_was() -> None:
    session = opened(Begin.NOW)
    session.message(1)
    session.message(2)
    assert [event.id for event in session.events()] == [1, 2]
    session.close()
    session.events()
    assert session.join() == Dialling("general", Position("e", 2))
    session.core.receive(json.dumps({**WELCOME, "last_id": 3, "replay": 1, "recovered": True}), session.now)
    assert session.events() == [Entered("general", "alice", "e", 3, ("bob",), resumed=True)]
    session.message(3)
    assert [event.id for event in session.events()] == [3]


@pytest.mark.parametrize(
    ("members", "told"),
    [({"last_id": 9, "replay": 2}, Gap("general", 2, 8, False)), ({"epoch": "f"}, Replaced("general", "f"))],
)
def test_if_something_is_missing_it_has_not_resumed(members: dict[str, Any], told: Any) -> None:
    session = opened()
    session.message(1)
    session.message(2)
    session.close()
    session.events()
    entered, found = session.open(**members)
    assert (entered.resumed, found) == (False, told)


def test_the_room_is_the_one_that_the_server_writes() -> None:
    session = Session(room="GENERAL")
    session.say("a")
    session.open()
    assert session.core.room == "general"
    assert [frame["cid"] for frame in session.frames()] == ["a"]
    session.message(1, author="alice", cid="a")
    assert session.core.position == Position("e", 1)
    session.close()
    assert session.dial() == Dialling("general", Position("e", 1))


def test_in_a_room_that_the_server_writes_otherwise_it_begins_as_it_was_asked_to() -> None:
    session = Session(Begin.NOW, room="GENERAL")
    session.open(last_id=5, replay=2)
    session.message(4)
    session.message(5)
    session.message(6)
    assert [event.id for event in session.events()] == [6]


# Records and news


def test_a_record_of_another_room_is_none_of_ours() -> None:
    session = opened()
    session.say("a")
    session.frames()
    session.message(1, room="ops", author="alice", cid="a")
    assert session.events() == []
    assert session.core.position == Position("e", 0)


def test_ones_own_message_is_shown_and_settled() -> None:
    session = opened()
    session.say("a")
    assert session.frames() == [{"event": "message", "data": {"text": "hi"}, "cid": "a"}]
    session.message(1, author="alice", cid="a")
    recorded, settled = session.events()
    assert isinstance(recorded, Recorded)
    assert settled == Settled("a", 1)
    assert session.core.unsettled == 0


@pytest.mark.parametrize("event", ["joined", "left", "typing", "members", "activity", "error"])
def test_news(event: str) -> None:
    session = opened()
    session.receive(event, {"username": "bob"}, room="general")
    (news,) = session.events()
    assert isinstance(news, News)
    assert news.frame.event == event


@pytest.mark.parametrize(
    "event", ["ack", "pong", "history", "rooms", "sanctions", "new", "welcome", "switched"]
)
def test_what_answers_nothing_is_ignored(event: str) -> None:
    session = opened()
    session.receive(event, WELCOME["data"], room="general")
    session.receive(event, WELCOME["data"], cid="foreign")
    assert session.events() == []


@pytest.mark.parametrize(("found", "left"), [(60, 60.0), (True, 0.0), ("60", 0.0), (-1, 0.0)])
def test_a_right_that_ends(found: object, left: float) -> None:
    session = opened()
    session.receive("expiring", {"in": found})
    assert session.events() == [Expiring(left)]


# Questions


def test_a_question_is_answered_once() -> None:
    session = opened()
    cid = session.core.ask("rooms", {"limit": 2})
    other = session.core.ask("members")
    assert session.frames() == [
        {"event": "rooms", "data": {"limit": 2}, "cid": cid},
        {"event": "members", "cid": other},
    ]
    session.receive("rooms", {"rooms": []}, cid=cid)
    session.receive("rooms", {"rooms": []}, cid=cid)
    session.error(other)
    first, second = session.events()
    assert (first.cid, first.frame.event) == (cid, "rooms")
    assert (second.cid, second.frame.event) == (other, "error")


def test_questions_are_answered_by_none_if_the_connection_is_lost() -> None:
    session = opened()
    first, second = session.core.ask("rooms"), session.core.ask("members")
    session.close()
    assert session.events() == [
        Answered(first, None),
        Answered(second, None),
        Lost("the connection was lost (1006)", 0.5),
    ]
    session.open()
    assert session.frames() == [], "they aren't asked again"
    session.close()
    assert session.events() == [Lost("the connection was lost (1006)", 1.0)], "nor answered again"


def test_questions_are_answered_by_none_at_a_stop() -> None:
    session = opened()
    cid = session.core.ask("rooms")
    session.core.stop()
    assert session.events() == [Answered(cid, None), Ended(Ending.STOPPED, "")]
    assert session.frames() == []


def test_a_question_that_waits_for_a_switch_is_answered_by_none_if_the_connection_is_lost() -> None:
    session = opened()
    session.core.switch("ops")
    session.frames()
    cid = session.core.ask("rooms")
    session.close()
    assert session.events()[0] == Answered(cid, None)
    session.open()
    assert [frame["event"] for frame in session.frames()] == ["switch_room"]


def test_typing() -> None:
    session = opened()
    session.core.typing(True)
    session.core.typing(False)
    assert [frame["data"] for frame in session.frames()] == [{"active": True}, {"active": False}]


# Drafts


def test_drafts_are_sent_one_by_one_and_again_after_a_loss() -> None:
    session = opened()
    session.say("a")
    session.say("b")
    assert [frame["cid"] for frame in session.frames()] == ["a"]
    session.close()
    session.events()
    session.open()
    assert [frame["cid"] for frame in session.frames()] == ["a"]
    session.receive("ack", {"id": 1, "duplicate": True}, cid="a")
    assert session.events() == [Settled("a", 1, duplicate=True)]
    assert [frame["cid"] for frame in session.frames()] == ["b"]


def test_after_unavailable_it_wakes_to_send_the_draft_again() -> None:
    session = opened()
    session.say("a")
    session.frames()
    session.error("a", "unavailable")
    assert session.events() == []
    assert session.core.wake_at() == session.now + RETRY_SECONDS
    session.wait(RETRY_SECONDS)
    assert [frame["cid"] for frame in session.frames()] == ["a"]
    assert session.core.wake_at() == session.now - RETRY_SECONDS + SILENCE


def test_what_is_too_large_is_refused() -> None:
    session = opened()
    session.say("a", "x" * 65536)
    session.say("b")
    assert [frame["cid"] for frame in session.frames()] == ["b"]
    assert session.events() == [Settled("a", error=TOO_LARGE)]


def test_the_limit_is_that_of_the_connection() -> None:
    session = Session()
    session.say("a", "x" * 65536)
    session.open(limits={})
    assert [frame["cid"] for frame in session.frames()] == ["a"]
    session.close()
    session.open()
    assert session.frames() == []
    assert session.events() == [Settled("a", error=TOO_LARGE)]


def test_after_1009_what_was_under_way_is_refused_and_not_what_is_behind_it() -> None:
    session = opened()
    session.say("a")
    session.say("b")
    session.frames()
    session.close(1009)
    assert session.events() == [Settled("a", error=TOO_LARGE), Lost("the connection was lost (1009)", 0.5)]
    session.open()
    assert [frame["cid"] for frame in session.frames()] == ["b"]


def test_1009_refuses_nothing_if_nothing_was_under_way() -> None:
    session = opened()
    session.close(1009)
    session.say("a")
    session.open()
    assert [frame["cid"] for frame in session.frames()] == ["a"]


@pytest.mark.parametrize("code", [1006, 1012, 4001, 4510])
def test_other_closes_refuse_nothing(code: int) -> None:
    session = opened()
    session.say("a")
    session.frames()
    session.close(code)
    assert session.core.unsettled == 1


# Switching


def switching(session: Session) -> str:
    """The `cid` of the one frame that is sent: a switch."""
    (frame,) = session.frames()
    assert frame["event"] == "switch_room"
    return str(frame["cid"])


def test_a_switch_goes_to_another_room() -> None:
    session = opened()
    session.core.switch("Ops")
    (frame,) = session.frames()
    assert (frame["event"], frame["data"]) == ("switch_room", {"room": "Ops"})
    session.switched("ops", frame["cid"], members=["carol"], last_id=4, replay=2)
    assert session.events() == [Entered("ops", "alice", "e", 4, ("carol",), resumed=False)]
    session.message(3, room="ops")
    assert [event.id for event in session.events()] == [3]
    assert session.core.room == "ops"


def test_nothing_is_sent_until_a_switch_is_answered() -> None:
    session = opened()
    session.core.switch("ops")
    cid = switching(session)
    session.say("a")
    session.core.typing(True)
    session.core.ask("rooms")
    session.core.switch("lunch")
    assert (session.frames(), session.events()) == ([], [])
    assert session.core.wake_at() == session.now + SILENCE
    session.switched("ops", cid)
    assert [frame["event"] for frame in session.frames()] == ["message", "rooms"]
    assert session.core.room == "ops"


def test_a_client_is_on_its_way_until_its_last_switch_is_answered() -> None:
    session = opened()
    assert (session.core.destination, session.core.is_moving) == ("general", False)
    session.core.switch("ops")
    session.core.switch("lunch")
    session.switched("ops", switching(session))
    assert (session.core.destination, session.core.is_moving) == ("lunch", True)
    session.receive("error", {"message": "no"}, cid=switching(session), code="forbidden")
    assert (session.core.destination, session.core.is_moving) == ("ops", False)


def test_the_answer_to_another_switch_is_ignored() -> None:
    session = opened()
    session.switched("ops", "q-1")
    session.core.switch("ops")
    cid = switching(session)
    session.switched("ops", f"{cid}0")
    session.receive("switched", {"room": "ops"}, members=[], epoch="e", last_id=0, replay=0)
    assert session.core.room == "general"
    session.switched("ops", cid)
    assert session.core.room == "ops"
    session.switched("lunch", cid)
    assert session.core.room == "ops"


def test_what_was_said_before_a_switch_is_settled_before_it_and_what_comes_behind_is_said_there() -> None:
    session = opened()
    session.say("a")
    session.core.switch("ops")
    session.say("b")
    session.core.switch("lunch")
    session.say("c")
    assert [frame["cid"] for frame in session.frames()] == ["a"]
    session.receive("ack", {"id": 1}, cid="a")
    session.switched("ops", switching(session))
    assert [frame["cid"] for frame in session.frames()] == ["b"]
    session.receive("ack", {"id": 1}, cid="b")
    session.switched("lunch", switching(session))
    assert [frame["cid"] for frame in session.frames()] == ["c"]


def test_a_switch_back_goes_on_where_it_was() -> None:
    session = opened()
    session.message(1)
    session.core.switch("ops")
    session.switched("ops", switching(session))
    session.core.switch("general")
    session.events()
    (frame,) = session.frames()
    assert frame["data"] == {"room": "general", "since": 1, "epoch": "e"}
    session.switched("general", frame["cid"], last_id=2, replay=1, recovered=True)
    (entered,) = session.events()
    assert entered.resumed
    session.message(2)
    assert [event.id for event in session.events()] == [2]


def test_if_a_switch_is_refused_it_stays_and_so_is_what_was_to_be_said_there() -> None:
    session = opened()
    session.core.switch("ops")
    session.say("a")
    session.core.switch("lunch")
    session.say("b")
    session.error(switching(session), sentence="Not allowed in this room")
    assert session.events() == [
        SwitchRefused("ops", "Not allowed in this room"),
        Settled("a", error="Not allowed in this room"),
    ]
    assert session.core.room == "general"
    session.switched("lunch", switching(session))
    assert [frame["cid"] for frame in session.frames()] == ["b"]


def test_if_the_store_is_unavailable_it_switches_a_moment_later() -> None:
    session = opened()
    session.core.switch("ops")
    session.error(switching(session), "unavailable")
    assert (session.events(), session.frames()) == ([], [])
    assert session.core.wake_at() == session.now + RETRY_SECONDS
    session.wait(RETRY_SECONDS)
    session.switched("ops", switching(session))
    assert session.core.room == "ops"


def test_a_switch_to_where_it_is_changes_nothing() -> None:
    session = opened()
    session.core.switch("GENERAL")
    session.say("a")
    session.receive("ack", {}, cid=switching(session))
    (refused,) = session.events()
    assert refused == SwitchRefused("GENERAL", "you are there already")
    assert [frame["cid"] for frame in session.frames()] == ["a"]


def test_a_switch_that_was_lost_is_tried_again_from_the_old_room() -> None:
    session = opened()
    session.core.switch("ops")
    switching(session)
    session.close()
    session.events()
    assert session.dial().room == "general"
    session.core.connected(session.now)
    session.core.receive(json.dumps(WELCOME), session.now)
    session.switched("ops", switching(session))
    session.close()
    assert session.dial().room == "ops"


def test_a_switched_that_makes_no_sense_is_no_chatrooms() -> None:
    session = opened()
    session.core.switch("ops")
    session.switched("ops", switching(session), epoch=None)
    (ended,) = session.events()
    assert ended.ending is Ending.ALIEN


def test_a_record_of_the_old_room_is_shown_before_the_switch_and_none_behind_it() -> None:
    session = opened()
    session.core.switch("ops")
    cid = switching(session)
    session.message(1)
    session.switched("ops", cid)
    session.message(2)
    shown, _ = session.events()
    assert shown.id == 1


# Gaps


def filling() -> Session:
    """Let in, with a gap behind 0 and before 5, which was told."""
    session = Session(Begin.NOW, fill=True, position=Position("e", 0))
    entered, gap = session.open(last_id=5, replay=1)
    assert (entered.resumed, gap) == (False, Gap("general", 0, 5, True))
    return session


def asked_page(session: Session) -> tuple[str, int]:
    """The `cid` of the one frame that is sent, a question for a page, and what it is to be after."""
    (frame,) = session.frames()
    assert (frame["event"], frame["data"]["limit"]) == ("history", PAGE)
    return frame["cid"], frame["data"]["after"]


def answer_page(session: Session, cid: str, *numbers: int, more: bool = False) -> list[Any]:
    items = [{"id": number, "username": "bob", "text": "hi"} for number in numbers]
    session.receive("history", {"messages": items, "more": more}, room="general", cid=cid)
    return [event.id if isinstance(event, Recorded) else event for event in session.events()]


def test_a_gap_is_read_page_by_page() -> None:
    session = filling()
    cid, after = asked_page(session)
    assert (after, session.frames()) == (0, [])
    session.message(5)
    assert answer_page(session, "foreign", 1, 2) == []
    assert answer_page(session, cid, 1, 2, more=True) == [1, 2]
    cid, after = asked_page(session)
    assert after == 2
    assert answer_page(session, cid, 3, 5) == [3, 5]
    assert session.frames() == []


def test_if_the_store_is_unavailable_it_asks_for_the_page_a_moment_later() -> None:
    session = filling()
    cid, _ = asked_page(session)
    session.error(cid, "unavailable")
    assert (session.events(), session.frames()) == ([], [])
    assert session.core.wake_at() == session.now + RETRY_SECONDS
    session.wait(RETRY_SECONDS)
    cid, after = asked_page(session)
    assert after == 0
    assert answer_page(session, cid, 1) == [1]


def test_if_there_is_no_page_ever_it_goes_on_behind_the_gap() -> None:
    session = filling()
    cid, _ = asked_page(session)
    session.message(5)
    session.error(cid)
    gap, shown = session.events()
    assert (gap, shown.id) == (Gap("general", 0, 5, False), 5)
    assert session.frames() == []


def test_a_gap_is_read_again_after_a_loss() -> None:
    session = filling()
    old, _ = asked_page(session)
    session.close()
    session.open(last_id=5, replay=1)
    cid, after = asked_page(session)
    assert after == 0
    assert answer_page(session, old, 1) == []
    assert answer_page(session, cid, 1) == [1]


def test_a_page_of_the_room_that_was_left_is_nothing() -> None:
    session = filling()
    cid, _ = asked_page(session)
    session.core.switch("ops")
    session.switched("ops", switching(session))
    session.events()
    assert answer_page(session, cid, 1) == []


def test_a_draft_waits_for_no_page() -> None:
    session = filling()
    session.say("a")
    assert [frame["event"] for frame in session.frames()] == ["message", "history"]


def test_a_room_that_is_entered_later_is_filled_as_the_first_one() -> None:
    session = Session(fill=True)
    session.open()
    session.core.switch("ops")
    session.switched("ops", switching(session), last_id=3, replay=0)
    session.events()
    session.message(5, room="ops")
    (gap,) = session.events()
    assert gap == Gap("ops", 3, 5, True)


# Hostile servers


@given(st.lists(objects(), max_size=20), st.sampled_from((State.JOINING, State.OPEN)))
def test_whatever_a_server_sends_nothing_is_raised_and_what_is_sent_can_be(
    found: list[dict[str, Any]], state: State
) -> None:
    session = in_state(state)
    for number, frame in enumerate(found):
        session.say(f"c{number}")
        session.core.switch(f"room{number}")
        cid = session.core.ask("rooms")
        for each in (frame, {**frame, "cid": cid}, {**frame, "cid": f"q-{number}"}, {**frame, "id": number}):
            session.core.receive(json.dumps(each), session.now)
        for text in session.core.take_frames(session.now):
            assert text.encode()
        wake = session.core.wake_at()
        assert wake is None or wake > session.now
    for event in session.events():
        assert repr(event)
    if (position := session.core.position) is not None:
        assert position.epoch.encode().decode() == position.epoch


@given(st.floats(0, 1e9), st.sampled_from((State.JOINING, State.OPEN)))
def test_woken_when_it_wants_to_be_it_has_always_something_to_do(start: float, state: State) -> None:
    session = in_state(state)
    session.now = start
    session.core.listen(start)
    session.now = max(start, session.now)
    for _ in range(20):
        wake = session.core.wake_at()
        if session.state is State.ENDED or wake is None:
            break
        assert wake > session.now or session.state is State.WAITING
        session.now = wake
        if session.state is State.WAITING:
            session.dial()
            session.core.connected(session.now)
        session.core.tick(session.now)
        session.core.take_frames(session.now)
        assert session.core.wake_at() != wake
