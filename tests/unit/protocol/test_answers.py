"""The JSON of answers by HTTP, byte for byte."""

from chatroom.core.messages import Deleted, Message, Moderated, Page
from chatroom.core.sanctions import Action, Sanction
from chatroom.protocol import answers
from chatroom.protocol.events import ListedRoom


def test_a_stored_message() -> None:
    assert answers.posted("a/b", "e", 7, 99, 'al"ice', duplicate=False) == (
        b'{"id":7,"ts":99,"epoch":"e","room":"a/b","username":"al\\"ice"}'
    )
    assert answers.posted("r", "e", 7, 99, "bob", duplicate=True).endswith(b'"bob","duplicate":true}')


def test_another_entry_is_its_frame() -> None:
    entry = Deleted(8, 99, "carol", "", "d1", 7, "bob", 7)
    frame = (
        b'{"event":"deleted","data":{"id":7,"username":"bob","by":"carol"},'
        b'"room":"r","id":8,"ts":99,"cid":"d1"}'
    )
    assert answers.entry("r", entry, duplicate=False) == frame
    assert answers.entry("r", entry, duplicate=True) == frame[:-1] + b',"duplicate":true}'


def test_pages_are_the_data_of_their_events() -> None:
    page = Page((Message(1, 2, "bob", "hi", None),), True)
    assert answers.history(page, forward=True) == (
        b'{"messages":[{"id":1,"ts":2,"username":"bob","text":"hi"}],"more":true}'
    )
    assert answers.rooms([ListedRoom("r", 2, 0, 0)], False) == (
        b'{"rooms":[{"room":"r","members":2,"last_id":0}],"more":false}'
    )
    mute = Sanction(Action.MUTE, "bob", "carol", 9, "x")
    kick = Moderated(4, 5, "carol", "", None, Action.KICK, "bob", None)
    assert answers.sanctions([mute], None) == (
        b'{"sanctions":[{"action":"mute","username":"bob","by":"carol","until":9,"reason":"x"}]}'
    )
    assert answers.sanctions([], [kick]) == (
        b'{"sanctions":[],"past":[{"id":4,"ts":5,"action":"kick","username":"bob","by":"carol"}]}'
    )
    assert answers.members((b'["a","b"]',)) == b'{"members":["a","b"]}'
