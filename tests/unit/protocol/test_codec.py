"""A text frame becomes a command, nothing, or an error that its sender can be told; never anything else."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chatroom.core.errors import CommandError, ErrorCode
from chatroom.core.sanctions import Action
from chatroom.protocol import events
from chatroom.protocol.codec import (
    COMMANDS,
    PLAIN_MESSAGE,
    Authenticate,
    Command,
    DeleteMessage,
    EditMessage,
    FollowRooms,
    ListMembers,
    ListRooms,
    ListSanctions,
    ModerateUser,
    Ping,
    Post,
    ReadHistory,
    SwitchRoom,
    Typing,
    decode,
    decode_carefully,
)

MAX_TEXT = 4000
BAD_JSON, BAD_EVENT, BAD_DATA = ErrorCode.BAD_JSON, ErrorCode.BAD_EVENT, ErrorCode.BAD_DATA
MOST = 2**63


def read(text: str, max_text: int = MAX_TEXT) -> Command | None:
    return decode(text, max_text=max_text)


def fail(text: str, max_text: int = MAX_TEXT) -> CommandError:
    with pytest.raises(CommandError) as caught:
        decode(text, max_text=max_text)
    assert not caught.value.retry
    return caught.value


def frame(event: object, data: object = None, **more: Any) -> str:
    members = {"event": event} | ({} if data is None else {"data": data}) | more
    return json.dumps(members, ensure_ascii=False)


# What is understood

UNDERSTOOD: list[tuple[str, Command | None]] = [
    ('{"event":"ping"}', Ping(None)),
    ('{"event":"ping","data":{},"cid":"c"}', Ping("c")),
    (' \t\r\n{"cid":"c","data":{"any":[1,{}]},"extra":null,"event":"ping"}\n', Ping("c")),
    ('{"event":"p\\u0069ng"}', Ping(None)),
    ('{"event":"members"}', ListMembers(None)),
    ('{"event":"members","cid":"m1"}', ListMembers("m1")),
    ('{"event":"message","data":{"text":"hello"}}', Post("hello", None)),
    ('{"event":"message","data":{"text":"  hello\\n"},"cid":"c"}', Post("hello", "c")),
    ('{"event":"message","data":{"text":"\\u2003a\\u00a0b\\u3000"}}', Post("a\xa0b", None)),
    ('{"event":"message","data":{"text":"\\u0000\\u202e<b>\\ud83d\\ude00"}}', Post("\0\u202e<b>😀", None)),
    ('{"event":"message","data":{"text":"hi","username":"root","id":9,"ts":0}}', Post("hi", None)),
    ('{"event":"message"}', None),
    ('{"event":"message","data":{}}', None),
    ('{"event":"message","data":{"text":""}}', None),
    ('{"event":"message","data":{"text":" \\u2028\\u0085\\u001f "}}', None),
    ('{"event":"edit","data":{"id":7,"text":" hello! "},"cid":"e"}', EditMessage(7, "hello!", "e")),
    ('{"event":"edit","data":{"id":1,"text":"x"}}', EditMessage(1, "x", None)),
    ('{"event":"delete","data":{"id":7},"cid":"d"}', DeleteMessage(7, "d")),
    (
        '{"event":"moderate","data":{"action":"mute","username":"bob","seconds":600,"reason":" a \\n b "},'
        '"cid":"m"}',
        ModerateUser(Action.MUTE, "bob", 600, "a b", "m"),
    ),
    (
        '{"event":"moderate","data":{"action":"unban","username":"\\uff42ob"}}',
        ModerateUser(Action.UNBAN, "bob", None, "", None),
    ),
    ('{"event":"sanctions"}', ListSanctions(False, None)),
    ('{"event":"sanctions","data":{"all":true},"cid":"s"}', ListSanctions(True, "s")),
    ('{"event":"rooms"}', ListRooms(None, 50, None)),
    ('{"event":"rooms","data":{"after":"ops","limit":999},"cid":"r"}', ListRooms("ops", 200, "r")),
    ('{"event":"follow","data":{"rooms":[]}}', FollowRooms((), None)),
    ('{"event":"follow","data":{"rooms":["b","\\uff41","b"]},"cid":"f"}', FollowRooms(("b", "a"), "f")),
    ('{"event":"switch_room"}', SwitchRoom("general", None, None, None)),
    ('{"event":"switch_room","data":{"room":"ops"},"cid":"s"}', SwitchRoom("ops", None, None, "s")),
    ('{"event":"switch_room","data":{"room":"\\uff4fps"}}', SwitchRoom("ops", None, None, None)),
    ('{"event":"switch_room","data":{"since":0,"epoch":"e"}}', SwitchRoom("general", 0, "e", None)),
    ('{"event":"switch_room","data":{"room":"a","since":42,"epoch":""}}', SwitchRoom("a", 42, "", None)),
    ('{"event":"switch_room","data":{"room":"a","epoch":"e"}}', SwitchRoom("a", None, None, None)),
    ('{"event":"typing","data":{"active":true}}', Typing(True, None)),
    ('{"event":"typing","data":{"active":false},"cid":"t"}', Typing(False, "t")),
    ('{"event":"history"}', ReadHistory(None, None, 50, None)),
    ('{"event":"history","data":{"before":0},"cid":"h"}', ReadHistory(0, None, 50, "h")),
    ('{"event":"history","data":{"after":0,"limit":1}}', ReadHistory(None, 0, 1, None)),
    ('{"event":"history","data":{"limit":200}}', ReadHistory(None, None, 200, None)),
    ('{"event":"history","data":{"limit":201}}', ReadHistory(None, None, 200, None)),
    (f'{{"event":"history","data":{{"limit":{MOST - 1}}}}}', ReadHistory(None, None, 200, None)),
    (f'{{"event":"history","data":{{"before":{MOST - 1}}}}}', ReadHistory(MOST - 1, None, 50, None)),
    ('{"event":"auth","data":{"token":"t"},"cid":"a"}', Authenticate("t", "a")),
    ('{"event":"auth","data":{"token":""}}', Authenticate("", None)),
]


@pytest.mark.parametrize(("text", "command"), UNDERSTOOD)
def test_a_well_formed_frame_is_its_command(text: str, command: Command | None) -> None:
    assert read(text) == command


def test_there_is_an_example_of_each_event_that_a_client_may_send() -> None:
    assert {json.loads(text)["event"] for text, _ in UNDERSTOOD} == COMMANDS


def test_a_token_is_not_shown_where_its_command_is() -> None:
    assert "s3cret" not in repr(read('{"event":"auth","data":{"token":"s3cret"}}'))


@pytest.mark.parametrize("length", [1, 64])
def test_a_cid_may_have_1_to_64_code_points(length: int) -> None:
    cid = "😀" * length
    assert read(frame("ping", cid=cid)) == Ping(cid)


@pytest.mark.parametrize("char", ["a", "é", "😀"])
def test_text_is_measured_in_code_points_after_stripping(char: str) -> None:
    assert read(frame("message", {"text": f" {char * 10}\n"}), max_text=10) == Post(char * 10, None)
    error = fail(frame("message", {"text": char * 11}, cid="c"), max_text=10)
    assert (error.code, error.field, error.limit, error.cid) == (ErrorCode.TOO_LONG, None, 10, "c")


@pytest.mark.parametrize(
    ("event", "data", "field"),
    [
        ("edit", {"text": "x"}, "id"),
        ("edit", {"id": 0, "text": "x"}, "id"),
        ("edit", {"id": True, "text": "x"}, "id"),
        ("edit", {"id": 1.0, "text": "x"}, "id"),
        ("edit", {"id": 1}, "text"),
        ("edit", {"id": 1, "text": " \n"}, "text"),
        ("edit", {"id": 1, "text": None}, "text"),
        ("delete", {}, "id"),
        ("delete", {"id": "1"}, "id"),
        ("moderate", {"username": "bob"}, "action"),
        ("moderate", {"action": "Mute", "username": "bob"}, "action"),
        ("moderate", {"action": 1, "username": "bob"}, "action"),
        ("moderate", {"action": "mute"}, "username"),
        ("moderate", {"action": "mute", "username": "a b"}, "username"),
        ("moderate", {"action": "mute", "username": "bob", "seconds": 0}, "seconds"),
        ("moderate", {"action": "mute", "username": "bob", "seconds": MOST - 1}, "seconds"),
        ("moderate", {"action": "mute", "username": "bob", "reason": None}, "reason"),
        ("sanctions", {"all": 1}, "all"),
        ("rooms", {"after": ""}, "after"),
        ("rooms", {"after": 1}, "after"),
        ("rooms", {"limit": 0}, "limit"),
        ("follow", {}, "rooms"),
        ("follow", {"rooms": "ops"}, "rooms"),
        ("follow", {"rooms": ["ops", 1]}, "rooms"),
        ("follow", {"rooms": ["a b"]}, "rooms"),
        ("follow", {"rooms": [str(number) for number in range(51)]}, "rooms"),
    ],
)
def test_a_command_that_lacks_something_is_told_what(event: str, data: dict[str, object], field: str) -> None:
    error = fail(frame(event, data, cid="c"))
    assert (error.code, error.field, error.cid) == (BAD_DATA, field, "c")


def test_a_reason_has_a_hundred_bytes_at_most() -> None:
    data = {"action": "kick", "username": "bob", "reason": "é" * 50}
    assert read(frame("moderate", data)) == ModerateUser(Action.KICK, "bob", None, "é" * 50, None)
    error = fail(frame("moderate", data | {"reason": "é" * 50 + "a"}, cid="c"))
    assert (error.code, error.limit, error.cid) == (ErrorCode.TOO_LONG, 100, "c")


# Rule 6: the short way for what nearly always comes, and the careful one


def outcome(way: Callable[[], Command | None]) -> object:
    """The command, or all that an error tells."""
    try:
        return way()
    except CommandError as error:
        return vars(error) | {"type": type(error)}


def check_both_ways(text: str, max_text: int = MAX_TEXT) -> None:
    assert outcome(lambda: decode(text, max_text=max_text)) == outcome(
        lambda: decode_carefully(text, max_text)
    )


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": "), (", ", ":"), (",", ": ")])
@pytest.mark.parametrize("text", ["hi 😀 é{}[],:'\x7f\x9f", "x" * 100])
def test_what_clients_write_is_plain(text: str, separators: tuple[str, str]) -> None:
    message: dict[str, object] = {"event": "message", "data": {"text": text}}
    for members in (message, message | {"cid": "c" * 64}, {"cid": "é"} | message):
        written = json.dumps(members, ensure_ascii=False, separators=separators)
        assert PLAIN_MESSAGE.fullmatch(written)
        assert read(written) == Post(text, members.get("cid"))  # type: ignore[arg-type]


any_characters = st.characters(exclude_categories=())
odd = st.sampled_from(
    [
        *'"\\{}[]:, \n\t\0\x1f\x7f\x80\x85\x9f\xa0\u2003\u2028\ud800\udfff\ufeff😀',
        '","cid":"',
        '"}}',
        "\\u0041",
    ]
)
words = st.lists(odd | any_characters | st.sampled_from(["a", "hello", " "]), max_size=6).map("".join) | (
    st.sampled_from(["a" * 19, "a" * 20, "a" * 21, "  " + "a" * 20 + "\u3000", "c" * 64, "c" * 65])
)


@st.composite
def nearly_plain(draw: st.DrawFn) -> str:
    """A plain message, or one that a space, a member, its order or some character keeps from being one."""
    space = st.sampled_from(["", "", "", " ", "  ", "\t"])
    colon, comma = draw(space), draw(space)
    data = f'{{"text":{colon}"{draw(words)}"}}'
    members = [f'"event":{colon}"message"', f'"data":{colon}{data}']
    for _ in range(draw(st.integers(0, 2))):
        members.insert(draw(st.sampled_from([0, len(members), 1])), f'"cid":{colon}"{draw(words)}"')
    text = "{" + f",{comma}".join(members) + "}"
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(st.just("") | odd | any_characters) + text[at + draw(st.integers(0, 2)) :]
    return text


@settings(max_examples=500)
@given(nearly_plain())
@example('{"event":"message","data":{"text":"a"},"cid":""}')
@example('{"event":"message","data":{"text":"  "}}')
@example('{"cid":"a","event":"message","data":{"text":"\x1c"}}')
@example('{"cid":"a","event":"message","data":{"text":"a"},"cid":"b"}')
@example('{"event":"message","data":{"text":"a"},"cid":"\ud800"}')
@example('{"event":"message","data":{"text":"\ud800"},"cid":"c"}')
@example('{"event":"message","data":{"text":"\0"}}')
@example('{"event":"message","data":{"text":"' + "a" * 70_000 + '"}}')
@example('{"event":"message","data":{"text":"' + "[" * 70_000 + '"}}')
def test_both_ways_come_to_the_same_result(text: str) -> None:
    check_both_ways(text, max_text=20)


@given(st.text(any_characters) | st.lists(odd).map("".join))
def test_both_ways_come_to_the_same_result_on_any_text(text: str) -> None:
    check_both_ways(text)


def test_both_ways_come_to_the_same_result_for_each_character() -> None:
    for code in (*range(0x3100), *range(0xD7F0, 0xE010), 0xFEFF, 0xFFFF, 0x10000, 0x10FFFF):
        for char in (chr(code), f"a{chr(code)}b", f"{chr(code)}a"):
            check_both_ways(f'{{"event":"message","data":{{"text":"{char}"}},"cid":"c"}}')
            check_both_ways(f'{{"cid":"{char}","event":"message","data":{{"text":"a"}}}}')


# Rule 3: syntax before shape before meaning


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "hello",
        "{",
        '{"event":"ping"',
        '{"event":"ping"}}',
        '{"event":"ping"} x',
        "{'event':'ping'}",
        '{"event":"ping",}',
        '{event:"ping"}',
        '{"event":"ping"}\x00',
        '\ufeff{"event":"ping"}',
        "NaN",
        '{"event":"ping","data":{"x":NaN}}',
        '{"event":"ping","data":{"x":Infinity}}',
        '{"event":"ping","data":{"x":-Infinity}}',
        '{"event":"ping","data":{"x":1e999}}',
        '{"event":"ping","data":{"x":-1e999}}',
        f'{{"event":"ping","data":{{"x":{MOST}}}}}',
        f'{{"event":"ping","data":{{"x":-{MOST + 1}}}}}',
        '{"event":"ping","data":{"x":' + "9" * 5000 + "}}",
        '{"event":"ping","data":{"x":01}}',
        '{"event":"ping","data":{"x":.5}}',
        '{"event":"ping","data":{"x":+1}}',
        '{"event":"message","data":{"text":"a\nb"}}',  # a raw control character in a string
        '{"event":"message","data":{"text":"\\x41"}}',
        '{"event":"message","data":{"text":"\\u12"}}',
        '{"event":"ping","cid":"c","cid":"c",',  # a key given twice, in what isn't JSON
        '[{"a":1,"a":2},',
    ],
)
def test_what_is_no_json_is_bad_json_in_the_words_of_the_base_protocol(text: str) -> None:
    error = fail(text)
    assert (error.code, error.message, error.field, error.cid) == (BAD_JSON, "Invalid JSON", None, None)


@pytest.mark.parametrize("number", [str(MOST - 1), str(-MOST), "-0", "1e308", "1.5", "-1E-400", "1" * 18])
def test_numbers_that_fit_are_json(number: str) -> None:
    assert read(f'{{"event":"ping","data":{{"x":{number}}}}}') == Ping(None)


def nested(depth: int, opening: str, closing: str) -> str:
    """A ping whose frame is level 1 and that goes down to level `depth`."""
    return '{"event":"ping","x":' + opening * (depth - 1) + "1" + closing * (depth - 1) + "}"


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")])
def test_nesting_may_have_16_levels_of_which_the_frame_is_the_first(opening: str, closing: str) -> None:
    step = len(opening.replace('"a":', ""))
    assert read(nested(1 + 15 // step, opening, closing)) == Ping(None)
    assert fail(nested(2 + 15 // step, opening, closing)).code == BAD_JSON


def test_nesting_is_measured_also_where_a_key_stands_twice() -> None:
    deep = "[" * 16 + "]" * 16
    assert fail(f'{{"event":"ping","x":1,"x":{deep}}}').code == BAD_JSON
    assert fail(f'{{"event":"ping","x":1,"x":{deep[1:-1]}}}').code == BAD_DATA
    assert fail(f'[{{"x":1,"x":{deep[2:-2]}}}]').code == BAD_DATA
    assert fail(f'[{{"x":1,"x":{deep[1:-1]}}}]').code == BAD_JSON


def test_many_brackets_that_are_not_deep_are_no_trouble() -> None:
    assert read(frame("ping", x=[[], {}] * 100)) == Ping(None)
    assert read(frame("ping", x="[" * 100)) == Ping(None)


@pytest.mark.parametrize("text", ["[]", "1", "-0.0", "true", "null", '"ping"', '[{"event":"ping"}]'])
def test_json_that_is_no_object_is_bad_data(text: str) -> None:
    error = fail(text)
    assert (error.code, error.field, error.cid) == (BAD_DATA, "frame", None)


@pytest.mark.parametrize(
    ("text", "field", "cid"),
    [
        ('{"event":"ping","event":"ping"}', "event", None),
        ('{"event":"ping","event":"pong","cid":"c"}', "event", "c"),
        ('{"cid":"c","event":"nonsense","event":"ping"}', "event", "c"),  # before bad_event
        ('{"event":"ping","cid":"c","cid":"c"}', "cid", None),
        ('{"event":"ping","cid":"c","c\\u0069d":"d"}', "cid", None),
        ('{"event":"ping","data":{},"data":{},"cid":"c"}', "data", "c"),
        ('{"event":"ping","data":{"a":{"b":1,"b":1}},"cid":"c"}', "frame", "c"),
        ('{"event":"ping","data":[[],[{"b":1,"a":2,"b":1}]],"cid":""}', "frame", None),
        ('{"event":"ping","data":{"cid":"x","cid":"x"},"cid":"c"}', "cid", "c"),
        ('{"event":"ping","hunter2":1,"hunter2":1}', "frame", None),
        ('{"event":"ping","\\ud800":1,"\\ud800":1,"cid":"c"}', "frame", "c"),
        ('[{"a":1,"a":1}]', "frame", None),
    ],
)
def test_a_key_given_twice_is_bad_data(text: str, field: str, cid: str | None) -> None:
    error = fail(text)
    assert (error.code, error.field, error.cid) == (BAD_DATA, field, cid)


@pytest.mark.parametrize(
    ("text", "field", "cid"),
    [
        ('{"event":"message","data":{"text":"\\ud800"},"cid":"c"}', "text", "c"),
        ('{"event":"message","data":{"text":"a\\uDFFFb"}}', "text", None),
        ('{"event":"message","data":{"text":"\\ude00\\ud83d"}}', "text", None),
        ('{"event":"ping","data":{"\\udbff":1},"cid":"c"}', "data", "c"),
        ('{"event":"ping","\\ud800":1,"cid":"c"}', "frame", "c"),
        ('{"event":"\\ud800","cid":"c"}', "event", "c"),  # before bad_event
        ('{"event":"ping","cid":"\\ud800"}', "cid", None),
        ('{"event":"ping","x":[1,{},["\\ud800"]],"cid":"c"}', "frame", "c"),
    ],
)
def test_a_lone_surrogate_is_bad_data_wherever_it_stands(text: str, field: str, cid: str | None) -> None:
    error = fail(text)
    assert (error.code, error.field, error.cid) == (BAD_DATA, field, cid)


@pytest.mark.parametrize(
    "text", ["\\ud83d\\ude00", "\\\\ud800", "\\uD83D\\uDE00 \\\\udfff"], ids=["pair", "backslash", "both"]
)
def test_a_pair_of_surrogates_is_a_character_and_an_escaped_backslash_is_text(text: str) -> None:
    command = read(f'{{"event":"message","data":{{"text":"{text}"}}}}')
    assert command == Post(json.loads(f'"{text}"'), None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "Unknown event: (none)"),
        ('{"event":null,"cid":"c"}', "Unknown event: (none)"),
        ('{"event":1}', "Unknown event: (none)"),
        ('{"event":["ping"]}', "Unknown event: (none)"),
        ('{"event":""}', "Unknown event: "),
        ('{"event":"PING"}', "Unknown event: PING"),
        ('{"event":"welcome"}', "Unknown event: welcome"),
        ('{"event":"nonsense","data":null,"cid":7}', "Unknown event: nonsense"),  # before cid and data
        ('{"event":"' + "😀" * 65 + '"}', "Unknown event: " + "😀" * 64),
    ],
)
def test_an_event_that_is_missing_or_unknown_is_bad_event(text: str, message: str) -> None:
    error = fail(text)
    assert (error.code, error.message, error.field) == (BAD_EVENT, message, None)
    assert error.cid == ("c" if '"cid":"c"' in text else None)


@pytest.mark.parametrize("cid", ["", "x" * 65, 1, None, True, [], {}, "\ud800"])
def test_a_cid_that_is_no_string_of_1_to_64_characters_is_bad_data(cid: object) -> None:
    error = fail(json.dumps({"event": "ping", "data": None, "cid": cid}))  # before data
    assert (error.code, error.field, error.cid) == (BAD_DATA, "cid", None)


@pytest.mark.parametrize("event", sorted(COMMANDS))
@pytest.mark.parametrize("data", ["null", "[]", '"x"', "1", "true"])
def test_data_of_a_wrong_type_is_bad_data(event: str, data: str) -> None:
    error = fail(f'{{"event":"{event}","data":{data},"cid":"c"}}')
    assert (error.code, error.field, error.cid) == (BAD_DATA, "data", "c")


WRONG: list[tuple[str, dict[str, object], str]] = [
    ("message", {"text": None}, "text"),
    ("message", {"text": 1}, "text"),
    ("message", {"text": ["a"]}, "text"),
    ("message", {}, "text"),  # with a cid, silence would be no answer
    ("message", {"text": " \n"}, "text"),
    ("switch_room", {"room": None}, "room"),
    ("switch_room", {"room": 1}, "room"),
    ("switch_room", {"room": ""}, "room"),
    ("switch_room", {"room": "a b"}, "room"),
    ("switch_room", {"room": "x" * 65}, "room"),
    ("switch_room", {"room": "a\u200bb"}, "room"),
    ("switch_room", {"since": -1, "epoch": "e"}, "since"),
    ("switch_room", {"since": "1", "epoch": "e"}, "since"),
    ("switch_room", {"since": None, "epoch": "e"}, "since"),
    ("switch_room", {"since": True, "epoch": "e"}, "since"),
    ("switch_room", {"since": 1.0, "epoch": "e"}, "since"),
    ("switch_room", {"since": 1}, "epoch"),
    ("switch_room", {"since": 1, "epoch": 7}, "epoch"),
    ("switch_room", {"epoch": None}, "epoch"),
    ("typing", {}, "active"),
    ("typing", {"active": None}, "active"),
    ("typing", {"active": 1}, "active"),
    ("typing", {"active": "true"}, "active"),
    ("history", {"before": 1, "after": 1}, "after"),
    ("history", {"before": -1}, "before"),
    ("history", {"before": None}, "before"),
    ("history", {"after": 1.0}, "after"),
    ("history", {"after": "1"}, "after"),
    ("history", {"limit": 0}, "limit"),
    ("history", {"limit": -1}, "limit"),
    ("history", {"limit": None}, "limit"),
    ("history", {"limit": True}, "limit"),
    ("history", {"limit": 50.0}, "limit"),
    ("auth", {}, "token"),
    ("auth", {"token": None}, "token"),
    ("auth", {"token": 1}, "token"),
]


@pytest.mark.parametrize(("event", "data", "field"), WRONG)
def test_a_wrong_member_of_data_is_named_and_the_cid_is_repeated(
    event: str, data: dict[str, object], field: str
) -> None:
    error = fail(frame(event, data, cid="c"))
    assert (error.code, error.field, error.cid) == (BAD_DATA, field, "c")


def test_the_same_mistake_without_a_cid_carries_none() -> None:
    for event, data, field in WRONG:
        if event != "message" or data.get("text", " \n") not in (" \n", ""):
            error = fail(frame(event, data))
            assert (error.code, error.field, error.cid) == (BAD_DATA, field, None)


@pytest.mark.parametrize(
    "text",
    [
        frame("message", {"text": 5, "secret": "hunter2"}),
        frame("switch_room", {"room": "hunter2 hunter2"}),
        frame("switch_room", {"room": "hunter2", "since": "hunter2"}),
        frame("history", {"before": "hunter2"}),
        frame("auth", {"token": ["hunter2"]}),
        frame("ping", cid="hunter2" * 20),
        '{"event":"message","data":{"text":"hunter2","text":"hunter2"}}',
        '{"event":"message","data":{"text":"hunter2\\ud800"}}',
        "hunter2",
    ],
)
def test_an_error_repeats_nothing_of_what_was_sent(text: str) -> None:
    assert b"hunter2" not in events.error(fail(text))


# Rule 2, for everything

scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=20)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)
members = st.sampled_from(["text", "room", "since", "epoch", "active", "before", "after", "limit", "token"])
frames = st.fixed_dictionaries(
    {"event": st.sampled_from(sorted(COMMANDS)) | values},
    optional={
        "data": st.dictionaries(members, scalars | st.integers(0, 300), max_size=4) | values,
        "cid": st.text(max_size=70) | values,
        "x": values,
    },
)
characters = st.sampled_from(
    [*'{}[]",:\\u0019deE+-.tfn \n', "event", "data", "cid", "ping", "message", "\\ud8", "NaN"]
)


def check(text: str) -> None:
    """Whatever it is, it is one of three things; and the error can be told."""
    try:
        command = decode(text, max_text=MAX_TEXT)
    except CommandError as error:
        told = json.loads(events.error(error))
        assert told["event"] == "error"
        assert told["code"] in {BAD_JSON, BAD_EVENT, BAD_DATA, ErrorCode.TOO_LONG}
        assert len(told["data"]["message"]) < 200
        return
    assert isinstance(command, Command | None)
    if isinstance(command, Post):
        assert 1 <= len(command.text) <= MAX_TEXT
        assert command.text == command.text.strip()
        command.text.encode()
    if command is not None and command.cid is not None:
        assert 1 <= len(command.cid) <= 64


@given(st.text() | st.lists(characters).map("".join))
@example("[" * 100_000)
@example("{" * 100_000)
@example('{"a":' * 50_000)
@example('{"event":"\\uDC00"}')
def test_any_text_is_a_command_or_nothing_or_an_error_that_can_be_told(text: str) -> None:
    check(text)


@given(frames, st.booleans())
def test_any_object_is_a_command_or_nothing_or_an_error_that_can_be_told(
    members: dict[str, object], ascii_only: bool
) -> None:
    check(json.dumps(members, ensure_ascii=ascii_only))


@given(frames, st.integers(0, 400), characters | st.characters())
def test_a_frame_with_something_put_into_it_is_one_of_the_three_too(
    members: dict[str, object], at: int, piece: str
) -> None:
    text = json.dumps(members)
    check(text[:at] + piece + text[at:])


@given(st.text(min_size=1, max_size=64), values.filter(lambda value: not isinstance(value, bool)))
def test_an_error_in_the_data_of_a_well_formed_frame_carries_its_cid(cid: str, active: object) -> None:
    error = fail(json.dumps({"event": "typing", "data": {"active": active}, "cid": cid}))
    assert error.cid == (None if error.code == BAD_JSON else cid)


SIZE = 64 * 1024
HUGE = {
    "brackets": "[" * SIZE,
    "braces": '{"":' * (SIZE // 4),
    "balanced": "[" * (SIZE // 2) + "]" * (SIZE // 2),
    "digits": '{"event":"ping","data":' + "9" * SIZE + "}",
    "a fraction": '{"event":"ping","data":1.' + "9" * SIZE + "}",
    "an exponent": '{"event":"ping","data":1e' + "9" * SIZE + "}",
    "keys": "{" + ",".join(f'"{number}":0' for number in range(7000)) + "}",
    "the same key": "{" + ",".join(['"a":0'] * 10_000) + "}",
    "the same key, deep": '{"event":"ping","x":' + "[" * 14 + '{"a":0,"a":0}' + "]" * 14 + "}",
    "escapes": '{"event":"' + "\\ud800" * (SIZE // 6) + '"}',
    "white space": " " * SIZE,
    "an epoch": '{"event":"switch_room","data":{"since":1,"epoch":"' + "e" * SIZE + '"}}',
    "a room": '{"event":"switch_room","data":{"room":"' + "é" * SIZE + '"}}',
    "a text of blanks": '{"event":"message","data":{"text":"' + " " * SIZE + '"}}',
    "a plain text": '{"event":"message","data":{"text":"' + "a" * SIZE + '"}}',
    "a plain text without an end": '{"event":"message","data":{"text":"' + "a" * SIZE,
    "a plain text with a wrong end": '{"event":"message","data":{"text":"' + "a" * SIZE + '"]}',
    "a cid without an end": '{"cid":"' + "a" * SIZE,
    "the beginning again and again": '{"cid":"a", "event": "message", "data": {"text": "' * (SIZE // 50),
    "the end again and again": '{"event":"message","data":{"text":"a' + '"},"cid":"a' * (SIZE // 11) + '"}',
    "a number of zeros": '{"event":"ping","data":' + "-0." + "0" * SIZE + "}",
}


@pytest.mark.parametrize("name", HUGE)
def test_the_most_that_a_frame_can_hold_is_judged_quickly(name: str) -> None:
    started = time.process_time()
    check(HUGE[name])
    assert time.process_time() - started < 0.25


def test_deep_nesting_is_measured_without_going_deep() -> None:
    """The careful reading is as safe as the first one from what would exhaust the stack."""
    text = '{"x":1,"x":' + "[" * 5000 + "]" * 5000 + "}"
    assert fail(text).code == BAD_JSON
