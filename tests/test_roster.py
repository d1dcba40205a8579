"""A roster counts connections by name, and shows names sorted: against a model that counts and sorts anew."""

import json
from collections import Counter

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from chatroom.pure.roster import Roster

NAMES = st.sampled_from(["alice", "bob", "Bob", "z", "é", "Ω", "😀", 'q"uote', "back\\slash", "a", "b"])


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
        assert shown == json.dumps(names, ensure_ascii=False, separators=(",", ":"))
        assert self.roster.as_json() is shown, "kept until the next change"


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
    assert roster.as_json() == "[]"
