"""A core against a model of the server: any interleaving of both, of cuts, and of failures of the store."""

import itertools
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from chatroom.client import cursor
from chatroom.client.core import Core, State
from chatroom.client.cursor import Begin
from chatroom.client.events import (
    Ended,
    Entered,
    Gap,
    Lost,
    Recorded,
    Replaced,
    Settled,
    SwitchRefused,
)
from tests.support.model_server import ModelConnection, ModelServer

ROOMS = ("General", "ops", "lunch")


class Reader:
    """What a program shows of the events, and whether that is right."""

    def __init__(self) -> None:
        self.room = ""
        self.epochs: dict[str, str] = {}
        self.last: dict[str, int] = {}
        """The id of the last record that was shown or told as missing."""
        self.shown: dict[tuple[str, str], list[int]] = {}
        self.filling = 0
        """Within a gap that is filled: the id before which holes are fine."""
        self.settled: dict[str, Settled] = {}
        self.refused: set[str] = set()
        self.resumed = 0

    def take(self, event: Any) -> None:
        match event:
            case Entered(room=room, epoch=epoch, resumed=resumed):
                self.room, self.filling = room, 0
                self.resumed += resumed
                self.known = self.epochs.get(room) == epoch
                self.epochs[room] = epoch
                self.begins = room not in self.last
            case Replaced(room=room, epoch=epoch):
                assert room == self.room
                assert not self.known or self.last.get(room, 0) > 0
                self.begins = True
                self.last.pop(room, None)
            case Gap(room=room, after=after, before=before, filled=filled):
                assert room == self.room
                assert after == self.last.get(room, after), "a gap begins behind what was shown"
                assert before > after + 1
                if filled:
                    self.filling = before
                else:
                    self.last[room] = before - 1
            case Recorded(frame=frame, id=number):
                self._show(frame, number)
            case Settled(cid=cid):
                assert cid not in self.settled, "a draft is settled once"
                self.settled[cid] = event
            case SwitchRefused(room=room):
                self.refused.add(room)

    def _show(self, frame: Any, number: int) -> None:
        room = self.room
        assert frame.room == room
        last = self.last.get(room)
        if last is not None and not self.begins:
            assert number > last, "twice, or out of order"
            assert number == last + 1 or number <= self.filling, "a hole that nobody has told"
        elif last is not None:
            assert number > last
        if number >= self.filling:
            self.begins = False
        self.last[room] = number
        self.shown.setdefault((room, self.epochs[room]), []).append(number)


class ClientMachine(RuleBasedStateMachine):
    """One client, the server, and the network between them."""

    @initialize(begin=st.sampled_from(Begin), fill=st.booleans())
    def start(self, begin: Begin, fill: bool) -> None:
        self.server = ModelServer()
        self.now = 0.0
        self.begin, self.fill = begin, fill or begin is Begin.FIRST
        self.core = Core(ROOMS[0], begin=begin, fill=fill, chance=lambda: 0.5, prefix="q", now=0.0)
        self.connection: ModelConnection | None = None
        self.reader = Reader()
        self.said: list[tuple[str, str]] = []
        self.numbers = itertools.count()
        self.spoiled = False
        """Whether messages of the log were lost on purpose."""

    def look(self) -> None:
        """Do what a driver does after anything has happened."""
        frames = self.core.take_frames(self.now)
        if self.connection is not None:
            self.connection.to_server.extend(frames)
        else:
            assert not frames
        for event in self.core.take_events():
            self.reader.take(event)
            if isinstance(event, Lost):
                self.connection = None
            assert not isinstance(event, Ended), "nothing here ends the client"
        wake = self.core.wake_at()
        assert wake is None or wake > self.now or self.core.state is State.WAITING, (
            "it would be woken at once"
        )

    # The client

    @rule(
        refused=st.sampled_from((False, False, False, True)),
        large=st.sampled_from((False, False, False, True)),
    )
    def say(self, refused: bool, large: bool) -> None:
        number = next(self.numbers)
        text = f"{number} refused" if refused else f"{number} " + "x" * 3000 * large
        self.said.append((f"c{number}", text))
        self.core.draft("message", {"text": text}, f"c{number}")
        self.look()

    @rule(room=st.sampled_from((*ROOMS, "GENERAL", "Ops")))
    def switch(self, room: str) -> None:
        self.core.switch(room)
        self.look()

    # The network

    @precondition(lambda self: self.core.state is State.WAITING)
    @rule(outcome=st.sampled_from(("open", "open", "open", "unreachable", "full")))
    def dial(self, outcome: str) -> None:
        self.now = max(self.now, self.core.wake_at() or 0.0)
        room, position = self.core.dial()
        if outcome == "unreachable":
            self.core.closed(1006, "nothing there", self.now)
        elif outcome == "full":
            self.core.refused(503, "full", 7, self.now)
            assert self.core.wake_at() >= self.now + 7
        else:
            since = None if position is None else (position.epoch, position.id)
            self.connection = ModelConnection(self.server, room, "alice", since)
            self.core.connected(self.now)
        self.look()

    def _connected(self) -> bool:
        return self.connection is not None

    @precondition(_connected)
    @rule(most=st.integers(1, 8))
    def client_reads(self, most: int) -> None:
        for _ in range(most):
            if self.connection is None:
                return
            if self.connection.to_client:
                self.core.receive(self.connection.to_client.popleft(), self.now)
            elif self.connection.closing is not None:
                self.core.closed(*self.connection.closing, self.now)
                self.connection = None
            self.look()

    @precondition(_connected)
    @rule(most=st.integers(1, 4))
    def server_reads(self, most: int) -> None:
        for _ in range(most):
            if self.connection.to_server:
                self.connection.serve_one()

    @precondition(_connected)
    @rule()
    def cut(self) -> None:
        self.connection.cut()

    @precondition(_connected)
    @rule(code=st.sampled_from((1012, 4001, 4008)))
    def close(self, code: int) -> None:
        self.connection.close(code, "")

    @rule(seconds=st.sampled_from((0.1, 1.0, 25.0)))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        if self.core.state is not State.WAITING:
            self.core.tick(self.now)
        self.look()

    # Others, and the store

    @rule(
        room=st.sampled_from(ROOMS),
        event=st.sampled_from(("message", "message", "edited")),
        many=st.integers(1, 9),
    )
    def others(self, room: str, event: str, many: int) -> None:
        for _ in range(many):
            data = {"username": "bob", "text": "hi", **({} if event == "message" else {"by": "bob", "id": 1})}
            # The same cid as one of alice's: whose it is tells the name.
            self.server.store(room.lower(), event, data, f"c{len(self.said) - 1}")

    @rule(how=st.sampled_from((None, None, "before", "after")))
    def store_fails(self, how: str | None) -> None:
        self.server.unavailable = how

    @rule(room=st.sampled_from(("ops", "lunch")), yes=st.booleans())
    def forbid(self, room: str, yes: bool) -> None:
        (self.server.forbidden.add if yes else self.server.forbidden.discard)(room)

    @rule(room=st.sampled_from(ROOMS), keep=st.integers(0, 8))
    def trim(self, room: str, keep: int) -> None:
        self.spoiled = True
        self.server.trim(room.lower(), keep)

    @rule(sure=st.sampled_from((False, False, False, True)))
    def replace(self, sure: bool) -> None:
        if sure:
            self.spoiled = True
            self.server.replace()

    # What holds

    @invariant()
    def nothing_doubled(self) -> None:
        for log in self.server.logs.values() if hasattr(self, "server") else ():
            cids = [record["cid"] for record in log.records if record["data"].get("username") == "alice"]
            assert len(cids) == len(set(cids))

    def teardown(self) -> None:
        """Whatever was: once everything works, all is settled, in order, and what was promised was shown."""
        if not hasattr(self, "server"):
            return
        self.server.unavailable = None
        for _ in range(2000):
            if self.core.state is State.WAITING:
                self.dial("open")
            elif self.connection.to_server:
                self.server_reads(8)
            elif self.connection.to_client or self.connection.closing is not None:
                self.client_reads(8)
            elif self.core.unsettled or self.core._route or (self.core.wake_at() or 0) < self.now + 2:
                self.time_passes(1.5)
            else:
                break
        else:
            raise AssertionError("it doesn't come to rest")
        self._check_said()
        self._check_shown()

    def _check_said(self) -> None:
        assert {cid for cid, _ in self.said} == set(self.reader.settled), "every draft is settled"
        stored = {}
        for room, log in self.server.logs.items():
            own = [record for record in log.records if record["data"].get("username") == "alice"]
            numbers = [int(record["data"]["text"].split()[0]) for record in own]
            assert numbers == sorted(numbers), "in the order in which it was said"
            stored.update({record["cid"]: (room, record) for record in own})
        for cid, text in self.said:
            settled = self.reader.settled[cid]
            if "refused" in text or len(text) > 2000:
                assert settled.error is not None
                assert cid not in stored
            elif settled.error is None and not self.spoiled:
                assert stored[cid][1]["id"] == settled.id
            elif not self.spoiled:
                assert cid not in stored

    def _check_shown(self) -> None:
        room = self.core.room
        log = self.server.log(room)
        shown = self.reader.shown.get((room, log.epoch), [])
        assert self.core.position is not None
        assert (self.core.position.epoch, self.core.position.id) == (log.epoch, max(log.last, 0))
        if self.fill and shown:
            first = 0 if self.begin is Begin.FIRST and room == ROOMS[0].lower() else shown[0]
            wanted = [
                record["id"]
                for record in log.records
                if record["event"] == "message" and record["id"] >= first
            ]
            assert set(wanted) <= set(shown), "every message of a gap is shown"


ClientMachine.TestCase.settings = settings(
    max_examples=150, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck)
)


class TestAnyInterleaving(ClientMachine.TestCase):
    """With few records held, so that they are dropped and read again often."""

    @pytest.fixture(autouse=True)
    def few_held(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cursor, "HELD_RECORDS", 4)
