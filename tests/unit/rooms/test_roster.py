"""A roster counts connections by name, and shows names sorted: against a model that does so each time."""

import json
from collections import Counter

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from chatroom.core.messages import Change
from chatroom.rooms.roster import Roster

NAMES = st.sampled_from(
    ["alice", "bob", "Bob", "z", "é", "Ω", "😀", 'q"uote', "back\\slash", "a", "b", ",", "x,", ',"x', '","']
)


def as_json(names: list[str]) -> bytes:
    return json.dumps(names, ensure_ascii=False, separators=(",", ":")).encode()


class RosterMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.roster = Roster()
        self.model: Counter[str] = Counter()

    @rule(name=NAMES)
    def enter(self, name: str) -> None:
        assert self.roster.enter(name) == (self.model[name] == 0)
        self.model[name] += 1

    @precondition(lambda self: self.model.total())
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(+self.model)))
        self.model[name] -= 1
        assert self.roster.leave(name) == (self.model[name] == 0)

    @rule(name=NAMES)
    def ask(self, name: str) -> None:
        assert (name in self.roster) == (self.model[name] > 0)

    @invariant()
    def names_are_sorted_by_code_point(self) -> None:
        expected = sorted(+self.model)
        assert self.roster.names == tuple(expected)
        assert len(self.roster) == len(expected)

    @rule()
    def show(self) -> None:
        names = sorted(+self.model)
        shown = self.roster.as_json()
        assert shown == as_json(names)
        assert self.roster.as_json() is shown, "kept until the next change"
        for name in names:
            others = [each for each in names if each != name or self.model[name] > 1]
            assert b"".join(self.roster.others(name)) == as_json(others)


TestRoster = RosterMachine.TestCase


def test_another_connection_of_a_name_changes_nothing_that_is_shown() -> None:
    roster = Roster()
    roster.enter("alice")
    shown = roster.as_json()
    roster.enter("alice")
    assert roster.as_json() is shown
    roster.leave("alice")
    assert roster.as_json() is shown


def test_who_is_not_there_can_not_leave() -> None:
    roster = Roster()
    with pytest.raises(KeyError):
        roster.leave("nobody")
    assert roster.as_json() == b"[]"


def test_the_list_is_not_copied_for_each_who_is_told_of_the_others() -> None:
    roster = Roster()
    for number in range(1000):
        roster.enter(f"name{number:04}")
    whole = roster.as_json()
    for name in ("name0000", "name0500", "name0999"):
        pieces = roster.others(name)
        assert sum(map(len, pieces)) == len(whole) - len(name) - 3
        shared = [piece for piece in pieces if isinstance(piece, memoryview)]
        assert all(piece.obj is whole for piece in shared)
        assert sum(len(piece) for piece in pieces if piece not in shared) <= 1


def test_names_that_are_gone_leave_nothing_behind() -> None:
    roster = Roster()
    for name in ("bob", "Bob"):
        roster.enter(name)
    assert roster.called("@bob") == {"bob", "Bob"}
    roster.leave("bob")
    assert roster.called("@bob") == {"Bob"}
    roster.leave("Bob")
    for number in range(100):
        roster.enter(f"passer-by{number}")
        roster.leave(f"passer-by{number}")
    assert roster.called("@bob") == frozenset()
    assert roster._folded == {}


# Rooms that other nodes have members in as well


def change(username: str, *, here: bool, announced: bool = True, ours: bool = False) -> Change:
    return Change(username, here=here, announced=announced, ours=ours)


def test_a_shared_list_is_what_has_been_announced() -> None:
    roster = Roster(shared=True)
    assert roster.enter("alice")
    assert roster.names == ()
    assert list(roster.here) == ["alice"]
    assert roster.change(change("alice", here=True, ours=True))
    assert not roster.change(change("alice", here=True, ours=True))
    assert roster.names == ("alice",)
    assert roster.leave("alice")
    assert roster.names == ("alice",)
    assert roster.change(change("alice", here=False, ours=True))
    assert roster.names == ()


def test_a_name_on_another_node_is_another_connection_of_it() -> None:
    roster = Roster(shared=True)
    roster.enter("alice")
    roster.change(change("alice", here=True, ours=True))
    assert b"".join(roster.others("alice")) == b"[]"
    assert not roster.change(change("alice", here=True, announced=False))
    assert b"".join(roster.others("alice")) == b'["alice"]'
    roster.change(change("alice", here=True, announced=False))
    roster.change(change("alice", here=False, announced=False))
    assert b"".join(roster.others("alice")) == b'["alice"]'
    roster.change(change("alice", here=False, announced=False))
    assert b"".join(roster.others("alice")) == b"[]"


def test_who_asks_is_on_the_list_even_before_that_is_announced() -> None:
    roster = Roster(shared=True)
    roster.replace({"ann": 1, "zoe": 1})
    roster.enter("bob")
    assert b"".join(roster.everyone("bob")) == b'["ann","bob","zoe"]'
    assert b"".join(roster.everyone("ann")) == b'["ann","zoe"]'
    assert b"".join(roster.others("bob")) == b'["ann","zoe"]'


def test_a_whole_list_says_what_it_changes() -> None:
    roster = Roster(shared=True)
    assert roster.replace({"b": 1, "a": 2}) == [change("a", here=True), change("b", here=True)]
    assert roster.replace({"b": 0, "c": 1}) == [change("a", here=False), change("c", here=True)]
    assert roster.names == ("b", "c")
    assert roster.replace({"c": 1, "b": 0}) == []
