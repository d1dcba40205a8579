"""docs/protocol.md says what the code does: events, errors, limits and codes are held against it."""

import inspect
import json
import re
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest

from chatroom.auth.rights import Rights
from chatroom.auth.tokens import Identity, TokenTable
from chatroom.auth.webtokens import LEEWAY
from chatroom.config.options import OPTIONS
from chatroom.connections.authorization import NOTICE_SECONDS
from chatroom.core.connectionlimits import ConnectionLimits
from chatroom.core.errors import CloseCode, CommandError, ErrorCode
from chatroom.core.http import Peer
from chatroom.core.limits import MAX_UNANSWERED, Limits
from chatroom.core.messages import Deleted, Edited, Message, Moderated, Page, Record
from chatroom.core.names import ROOM_MAX, USERNAME_MAX
from chatroom.core.sanctions import MAX_SANCTIONS, Action, Sanction
from chatroom.http.handshake import SUBPROTOCOL, JoinRequest, Vetted
from chatroom.http.site import Admissions
from chatroom.protocol import codec, events
from chatroom.protocol.codec import decode
from chatroom.protocol.session import TYPING_FRAMES, TYPING_GAP, TYPING_SECONDS, Session, Weight
from chatroom.rooms.joinreply import MAX_RECOVERED
from chatroom.rooms.room import MAX_TYPING
from chatroom.websocket.framing import Pieces, text_frame
from tests.support.pages import fences, rows, words
from tests.support.process import ROOT

DOCUMENT = (ROOT / "docs" / "protocol.md").read_text("utf-8")
LIMITS = Limits()
TOLD = events.limits_json(LIMITS, unanswered=MAX_UNANSWERED)

# Events


def names(members: list[str]) -> bytes:
    return json.dumps(members, ensure_ascii=False, separators=(",", ":")).encode()


def stored(item: dict[str, Any], data: dict[str, Any]) -> Message:
    return Message(
        *(item["id"], item["ts"], data["username"], data["text"], item.get("cid")),
        edited=item.get("edited"),
        deleted=item.get("deleted"),
    )


def record_of(frame: dict[str, Any], data: dict[str, Any]) -> Record:
    first, cid = (frame["id"], frame["ts"]), frame.get("cid")
    match frame["event"]:
        case "edited":
            return Edited(*first, data["by"], data["text"], cid, data["id"], data["id"])
        case "deleted":
            return Deleted(*first, data["by"], "", cid, data["id"], data["username"], data["id"])
        case "moderated":
            return moderated_of(frame | data | {"id": frame["id"]})
    return stored(frame, data)


def moderated_of(each: dict[str, Any]) -> Moderated:
    return Moderated(
        *(each["id"], each["ts"], each["by"], each.get("reason", ""), each.get("cid")),
        *(Action(each["action"]), each["username"], each.get("until")),
    )


def sanction_of(each: dict[str, Any]) -> Sanction:
    return Sanction(
        Action(each["action"]), each["username"], each["by"], each.get("until"), each.get("reason", "")
    )


def opening(frame: dict[str, Any]) -> dict[str, Any]:
    return {key: frame[key] for key in ("epoch", "last_id", "replay")} | {"recovered": frame.get("recovered")}


def failure(frame: dict[str, Any]) -> bytes:
    code, said = ErrorCode(frame["code"]), frame["data"]["message"]
    extras = {"field": frame.get("field"), "limit": frame.get("limit"), "retry": frame.get("retry", False)}
    extras["until"] = frame.get("until")
    return events.error(CommandError(code, said, **extras, cid=frame.get("cid")))


BUILD: dict[str, Callable[[dict[str, Any], dict[str, Any]], bytes]] = {
    "welcome": lambda frame, data: b"".join(
        events.welcome(
            frame["room"], frame["username"], (names(data["members"]),), **opening(frame), limits=TOLD
        )
    ),
    "opened": lambda frame, _data: b"".join(
        events.opened(frame["room"], frame["username"], **opening(frame))
    ),
    "switched": lambda frame, data: b"".join(
        events.switched(data["room"], (names(frame["members"]),), frame.get("cid"), **opening(frame))
    ),
    "record": lambda frame, data: events.record(frame["room"], record_of(frame, data)),
    "sanctions": lambda frame, data: events.sanctions(
        frame["room"],
        [sanction_of(each) for each in data["sanctions"]],
        [moderated_of(each) for each in data["past"]] if "past" in data else None,
        frame.get("cid"),
    ),
    "rooms": lambda frame, data: events.rooms(
        [events.ListedRoom(**({"last_ts": 0} | each)) for each in data["rooms"]],
        data["more"],
        frame.get("cid"),
    ),
    "followed": lambda frame, data: events.followed(
        [events.FollowedHead(**each) for each in data["rooms"]], frame.get("cid")
    ),
    "activity": lambda _frame, data: events.activity(**data),
    "joined": lambda frame, data: events.joined(frame["room"], data["username"]),
    "left": lambda frame, data: events.left(frame["room"], data["username"]),
    "typing": lambda frame, data: events.typing(frame["room"], data["username"], data["active"]),
    "members": lambda frame, data: b"".join(
        events.members(frame["room"], (names(data["members"]),), frame.get("cid"))
    ),
    "history": lambda frame, data: events.history(
        frame["room"],
        Page(tuple(stored(item, item) for item in data["messages"]), data["more"]),
        frame.get("cid"),
    ),
    "pong": lambda frame, _data: events.pong(frame.get("cid")),
    "ack": lambda frame, _data: events.ack(frame.get("cid")),
    "renewed": lambda frame, data: events.renewed(data["exp"], frame.get("cid")),
    "expiring": lambda _frame, data: events.expiring(data["in"]),
    "duplicate": lambda frame, data: events.duplicate(data["id"], frame.get("cid")),
    "error": lambda frame, _data: failure(frame),
}
"""How each encoder makes again what it made, from the values in it."""


def encoders() -> set[str]:
    """The functions that make the payload of a frame."""
    functions = inspect.getmembers(events, inspect.isfunction)
    return {
        name
        for name, function in functions
        if function.__module__ == events.__name__ and function.__annotations__["return"] in (bytes, Pieces)
    }


def server_examples() -> list[str]:
    return fences(DOCUMENT, "json server")


def made_by(line: str) -> str:
    """The encoder whose bytes these are."""
    frame = json.loads(line)
    special = {"duplicate": "duplicate", "exp": "renewed", "rooms": "followed"}
    name = next((special[key] for key in frame["data"] if key in special), frame["event"])
    if name == "welcome" and "members" not in frame["data"]:
        name = "opened"
    if frame["event"] == "rooms":
        name = "rooms"
    elif "id" in frame:
        name = "record"
    assert BUILD[name](frame, frame["data"]).decode() == line
    return name


def test_the_examples_of_the_server_are_what_its_encoders_make() -> None:
    assert {made_by(line) for line in server_examples()} == encoders() == set(BUILD)


def test_the_examples_of_a_client_are_understood() -> None:
    examples = fences(DOCUMENT, "json client")
    for line in examples:
        assert decode(line, max_text=LIMITS.text_chars) is not None, line
    assert {json.loads(line)["event"] for line in examples} == codec.COMMANDS


def sent_by_server() -> set[str]:
    source = inspect.getsource(events)
    return set(re.findall(r'"event":"(\w+)"', source)) | set(re.findall(r'\bevent = "(\w+)"', source))


def test_the_table_of_events() -> None:
    table = rows(DOCUMENT, "Events")
    assert {words(event)[0] for event, client, _, _ in table if client} == codec.COMMANDS
    assert {words(event)[0] for event, _, server, _ in table if server} == sent_by_server()
    assert all(client or server for _, client, server, _ in table)


def test_no_other_event_is_spoken_of() -> None:
    spoken = set(re.findall(r'"?event"?: ?"(\w+)"', DOCUMENT))
    assert spoken - codec.COMMANDS - sent_by_server() == {"dance", "stopped", "unsent"}


def test_the_headings_of_events_are_events() -> None:
    (part,) = re.findall(r"^## Events\n(.*?)^## ", DOCUMENT, re.MULTILINE | re.DOTALL)
    named = {name for title in re.findall(r"^### (.+)$", part, re.MULTILINE) for name in title.split(" and ")}
    assert named == (codec.COMMANDS | sent_by_server()) - {
        "switched", "pong", "error", "edited", "deleted", "moderated"
    }  # fmt: skip


def test_the_answer_to_a_question_by_http() -> None:
    admissions = Admissions(TokenTable.development(), ConnectionLimits(LIMITS), None, lambda: 0.0)
    identity = Identity(None, Rights.everything(), "dev", "")
    answer = admissions.preview(Vetted(Peer("192.0.2.1"), identity, "alice", JoinRequest("alice", "general")))
    assert fences(DOCUMENT, "json handshake") == [answer.body.decode().rstrip("\n")]


# Errors


def answer_to(text: str) -> str:
    session = Session("alice", "general", Rights.everything(), LIMITS)
    with pytest.raises(CommandError) as caught:
        session.decide(text, 0.0)
    return events.error(caught.value).decode()


def test_every_error_shown_is_the_answer_to_what_is_shown() -> None:
    table = re.findall(r"^\| `(.+)` \| `(\{.+\})` \|$", DOCUMENT, re.MULTILINE)
    assert len(table) == 18
    for sent, answered in table:
        assert answer_to(sent) == answered, sent


def test_every_error_code() -> None:
    assert [words(code) for code, _, _ in rows(DOCUMENT, "Errors")] == [[str(code)] for code in ErrorCode]


# Limits and codes

CELLS: dict[tuple[str, ...], Callable[[Limits], str]] = {
    ("head_bytes", "head_line", "head_headers", "head_seconds"): lambda now: (
        f"{now.head_bytes // 1024} KiB, its first line {now.head_line // 1024} KiB, {now.head_headers} "
        f"headers, {now.head_seconds:g} s"
    ),
    ("frame_bytes",): lambda now: f"{now.frame_bytes // 1024} KiB",
    ("frame_fragments", "frame_seconds"): lambda now: (
        f"{now.frame_fragments} fragments, {now.frame_seconds:g} s"
    ),
    ("text_chars",): lambda now: f"{now.text_chars:,} characters",
    ("edit_seconds",): lambda now: f"{now.edit_seconds / 3600:g} hours",
    ("message_rate", "message_burst"): lambda now: (
        f"{now.message_rate:g} a second, {now.message_burst} at once"
    ),
    ("command_rate",): lambda now: f"{now.command_rate:g} a second, by [weight](#what-commands-weigh)",
    ("control_rate",): lambda now: f"{now.control_rate:g} a second",
    ("faults", "fault_seconds"): lambda now: f"{now.faults} in {now.fault_seconds:g} s",
    ("connections",): lambda now: f"{now.connections:,}",
    ("per_user",): lambda now: f"{now.per_user}",
    ("per_address",): lambda now: f"{now.per_address}",
    ("wrong_tokens", "wrong_token_seconds"): lambda now: (
        f"{now.wrong_tokens} in {now.wrong_token_seconds:g} s"
    ),
    ("unauthenticated",): lambda now: f"{now.unauthenticated}",
    ("ping_interval", "ping_timeout"): lambda now: (
        f"{now.ping_interval:g} s, then {now.ping_timeout:g} s after a ping"
    ),
    ("send_timeout",): lambda now: f"{now.send_timeout:g} s",
}
"""The rows of the table, in its order: the limits that each tells, and in which words."""


def test_every_limit_with_its_default() -> None:
    assert [default for _, default, _, _ in rows(DOCUMENT, "Limits")] == [
        cell(LIMITS) for cell in CELLS.values()
    ]
    told = [name for names in CELLS for name in names]
    assert sorted(told) == sorted(field.name for field in fields(Limits))


def test_what_commands_weigh() -> None:
    assert rows(DOCUMENT, "What commands weigh") == [
        ["each", f"1 for each {Weight.FRAME_CHARACTERS:,} characters of its frame"],
        [
            "`history`",
            f"1 for each {Weight.PAGE_MESSAGES} messages and each {Weight.PAGE_BYTES >> 10} KiB of the page",
        ],
        ["`members`", f"1 for each {Weight.NAMES} names"],
        ["`rooms`", f"1 for each {Weight.ROOMS} rooms that there are"],
        ["`follow`", f"1 for each {Weight.FOLLOWED} rooms"],
        ["`sanctions`", "as `history`"],
        [
            "`switch_room`",
            f"{Weight.SWITCH:g}, and 1 for each {Weight.TOLD} connections in the two rooms together, "
            f"but {Weight.TOLD_AT_MOST:g} at most, and 1 for each {Weight.REPLAYED} messages that follow",
        ],
        ["`auth`", f"{Weight.TOKEN:g}"],
    ]


def test_every_option_of_a_limit() -> None:
    options = {option.target.removeprefix("limits."): option.flag for option in OPTIONS}
    expected = [[options[name] for name in names if name in options] for names in CELLS]
    expected[6] = ["--rate"]  # it lifts the pace of the other commands, too
    assert [words(option) for _, _, option, _ in rows(DOCUMENT, "Limits")] == expected


def test_every_close_code_and_whether_to_come_back() -> None:
    table = rows(DOCUMENT, "Close codes")
    assert [int(code) for code, _, _ in table] == sorted(CloseCode)
    for code, _, back in table:
        assert (back == "no") == (4500 <= int(code) < 4600)


def test_numbers_in_the_text() -> None:
    text = " ".join(DOCUMENT.split())
    for sentence in (
        f"a string of 1 to {codec.MAX_CID} characters",
        f"1 to {USERNAME_MAX} characters, see",
        f"1 to {ROOM_MAX} characters |",
        f"`limit` is {codec.DEFAULT_PAGE} if left out, and above {codec.MAX_PAGE} counts as {codec.MAX_PAGE}",
        f"A page ends at about {events.HISTORY_BYTES // 1024} KiB",
        f"nesting deeper than {codec.MAX_DEPTH} levels",
        f"more than {MAX_RECOVERED} messages are missing",
        f"within {TYPING_GAP:g} seconds of the last one",
        f"at most {TYPING_FRAMES} frames in {TYPING_SECONDS:g} seconds; where more than {MAX_TYPING:,} begin",
        f"Up to {MAX_UNANSWERED} messages may be under way",
        f"it has {codec.MAX_FOLLOWED} rooms at most",
        f"A reason has {codec.MAX_REASON} bytes of UTF-8 at most",
        f"At most {MAX_SANCTIONS:,} are in force in a room",
        f"the last {codec.MAX_PAGE} of what the log still has",
        f'["{SUBPROTOCOL}", "bearer.T"]',
        f"ends {LEEWAY} seconds after it",
        f"says {'a minute' if NOTICE_SECONDS == 60 else '?'} before how many seconds",
    ):
        assert sentence in text, sentence


def test_the_largest_frames() -> None:
    """What is said of the frames that a client must be able to take."""
    longest = [f"{number:06}" + "\U00020000" * 26 for number in range(LIMITS.connections)]
    assert len(names([f"{name[:6]}{name[6:]}" for name in longest])) <= 1_310_000
    text = "\0" * LIMITS.text_chars
    worst = Message(2**53, 2**53, "\U00020000" * USERNAME_MAX, text, "\0" * codec.MAX_CID)
    room = "\U00020000" * ROOM_MAX
    assert len(events.record(room, worst)) <= 6 * LIMITS.text_chars + 1024
    page = events.history(room, Page((worst,) * 200, True), "\0" * codec.MAX_CID)
    assert events.HISTORY_BYTES - 6 * LIMITS.text_chars < len(page) < events.HISTORY_BYTES + 1024
    text = " ".join(DOCUMENT.split())
    assert f"1.3 MB for {LIMITS.connections:,} names of {USERNAME_MAX} four-byte letters" in text
    assert f"takes {events.HISTORY_BYTES >> 10} KiB and a few bytes" in text


def test_an_example_fits_into_a_frame() -> None:
    for line in server_examples():
        assert len(text_frame(line.encode())) <= LIMITS.frame_bytes
