"""The room as a person sees it."""

import pytest

from chatroom.client.roomview import CROWD, RoomView
from chatroom.client.screen import Completions
from chatroom.client.typed import Moderate, Switch, read_typed


def view(*others: str) -> RoomView:
    found = RoomView()
    found.entered("general", "me", others)
    return found


def choices(found: RoomView, before: str) -> list[str]:
    start, offered = found.complete(before)
    return [before[:start] + each for each in offered]


def test_members_come_and_go() -> None:
    found = view("bob")
    assert found.joined("carol") == "carol has joined"
    assert found.here(9) == "3 here: bob, carol, me"
    assert found.left("bob") == "bob has left"
    found.listed(["me", "zoe"])
    assert found.here(9) == "2 here: me, zoe"


def test_of_a_crowd_some_are_named() -> None:
    assert view("a", "b", "c").here(2) == "4 here: a, b and 2 more"


def test_nobody_comes_or_goes_twice() -> None:
    found = view("bob")
    assert found.joined("bob") is None
    assert found.left("carol") is None


def test_in_a_crowd_nobody_is_told_who_comes_and_goes() -> None:
    found = view(*(f"n{number}" for number in range(CROWD)))
    assert found.joined("carol") is None
    assert found.left("carol") is None


def test_typing_is_said_of_few_by_name() -> None:
    found = view("a", "b", "c", "d")
    said = []
    for name in "abcd":
        found.marks.told(name, active=True, now=0)
        said.append(found.typists(1))
    assert said == [
        "a is typing …",
        "a and b are typing …",
        "a, b and c are typing …",
        "several people are typing …",
    ]
    assert found.typists(6) == ""


def test_who_has_spoken_or_left_is_no_longer_typing() -> None:
    found = view("a", "b", "c")
    for name in "abc":
        found.marks.told(name, active=True, now=0)
    found.said("a")
    found.left("b")
    assert found.typists(1) == "c is typing …"
    found.entered("ops", "me", ["c"])
    assert found.typists(1) == ""


def test_commands_are_offered_at_the_begin_of_a_line() -> None:
    assert choices(view(), "/sw") == ["/switch"]
    assert choices(view(), "/m") == ["/members", "/me", "/mute"]
    assert choices(view(), "so /sw") == []


def test_names_are_offered_with_and_without_the_sign_that_calls_them() -> None:
    found = view("Bob", "bobby", "carol")
    assert choices(found, "hi @bo") == ["hi @Bob", "hi @bobby"]
    assert choices(found, "hi bo") == ["hi Bob", "hi bobby"]
    assert choices(found, "hi\nbo") == ["hi\nBob", "hi\nbobby"]
    assert choices(found, "@") == ["@Bob", "@bobby", "@carol"]
    assert choices(found, "/mute C") == ["/mute carol"]
    assert choices(found, "hi ") == []


def test_who_spoke_last_is_offered_first_and_oneself_never() -> None:
    found = view("bob", "bobby", "bobo")
    for name in ("bobo", "bobby", "me", "gone"):
        found.said(name)
    assert choices(found, "@b") == ["@bobby", "@bobo", "@bob"]
    assert choices(found, "@me") == []
    assert choices(found, "@gone") == []


def test_rooms_are_offered_behind_switch() -> None:
    found = view("ops-man")
    found.known(["ops", "lunch"])
    assert choices(found, "/switch ") == ["/switch general", "/switch lunch", "/switch ops"]
    assert choices(found, "/switch o") == ["/switch ops"]
    assert choices(found, "/switch ops o") == ["/switch ops ops-man"]


def test_a_name_that_begins_with_a_sign_is_offered_as_the_commands_read_it() -> None:
    found = view("bob", "@bob")
    found.known(["x", "#x"])
    for before in ("/kick ", "/kick @", "/kick b", "/kick @@"):
        for line in choices(found, before):
            meant = read_typed(line)
            assert isinstance(meant, Moderate)
            assert line.endswith(meant.username)
            assert (meant.username == "@bob") == ("@@bob" in line)
    assert choices(found, "/kick ") == ["/kick @@bob", "/kick bob"]
    assert choices(found, "/kick @") == ["/kick @@bob", "/kick @bob"]
    assert choices(found, "/switch ") == ["/switch ##x", "/switch general", "/switch x"]
    assert choices(found, "/switch #") == ["/switch ##x", "/switch #general", "/switch #x"]
    assert read_typed("/switch ##x") == Switch("#x")


HOSTILE = ["\x1b[2J", "a\x1b]0;title\x07", "a\u202eb", "a b", "a\nb", "\x9b2J", ""]


@pytest.mark.parametrize("name", HOSTILE)
def test_what_a_hostile_server_calls_people_and_rooms_never_comes_into_the_line(name: str) -> None:
    found = view(name)
    found.known([name])
    found.said(name)
    for before in ("@", "/switch ", "/kick ", name[:1], f"@{name[:1]}"):
        assert name not in found.complete(before).choices


@pytest.mark.parametrize("name", [name for name in HOSTILE if name and name != "a b"])
def test_what_a_hostile_server_calls_people_is_shown_harmlessly(name: str) -> None:
    found = view()
    joined, left = found.joined(name), found.left(name)
    found.listed([name])
    found.marks.told(name, active=True, now=0)
    for shown in (joined, left, found.here(9), found.typists(1)):
        assert shown
        assert shown.isprintable(), shown
        assert name not in shown


def test_completions_start_where_the_word_does() -> None:
    assert view("bob").complete("hi b") == Completions(3, ("bob",))
