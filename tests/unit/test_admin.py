"""The command `admin`: what it asks for, what it shows, and what it refuses to be."""

import json
import re
import subprocess
import sys
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest

from chatroom import cli
from chatroom.admin import ADMIN_OPTIONS, WORDS, AdminSettings, read_admin
from chatroom.client.address import Place
from tests.support.answering import Answering, answer, refusal
from tests.support.process import clean_environment

Captured = pytest.CaptureFixture[str]
SECRET = "s3" + "cret"
TS = 1_764_000_000_000
TIME = "2025-11-24 16:00:00Z"
HOSTILE = "e\x1b[31m\u202ev\x9b\u200bil\n"
SHOWN = r"e\u001b[31m\u202ev\u009b\u200bil\u000a"


def asked(*arguments: str, **environ: str) -> AdminSettings:
    found = read_admin(arguments, environ)
    assert isinstance(found, AdminSettings)
    return found


def admin(server: Answering, *arguments: str) -> int:
    place = server.place
    way = ("--url", place.shown) if place.unix is None else ("--unix", place.unix)
    return cli.main(["admin", *way, *arguments], {})


# Options


def test_a_command_with_all_that_it_may_have(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f" {SECRET}\n")
    found = asked(
        "mute", "général", "\uff41lice", "--for", "90m", "--reason", " too  loud\n", "--json",
        "--as", "carol",
        "--url", "https://chat.example/chat/", "--ca", "ca.pem", "--token-file", str(tmp_path / "token"),
        CHATROOM_TOKEN="other",
    )  # fmt: skip
    assert found == AdminSettings(
        command="mute",
        room="général",
        words=("alice",),
        place=Place("chat.example", None, "/chat", True),
        token=SECRET,
        username="carol",
        ca="ca.pem",
        as_json=True,
        seconds=5400,
        reason="too loud",
        past=False,
        output=None,
    )


def test_where_it_asks() -> None:
    assert asked("rooms").place == Place(port=3000)
    assert asked("rooms", "--unix", "s").place == Place(unix="s")
    assert asked("rooms", CHATROOM_ADMIN_SOCKET=" s ").place == Place(unix="s")
    assert asked("rooms", "--url", "http://h", CHATROOM_ADMIN_SOCKET="s").place == Place("h")


def test_by_which_name_and_token() -> None:
    assert (asked("rooms").token, asked("rooms").username) == (None, None)
    assert asked("rooms", "--unix", "s").username == "operator"
    assert asked("rooms", "--unix", "s", "--as", "bob").username == "bob"
    assert asked("rooms", "--unix", "s", CHATROOM_TOKEN=SECRET).username is None
    assert asked("rooms", CHATROOM_TOKEN=f" {SECRET} ").token == SECRET


def test_words_may_stand_among_options_and_behind_dashes() -> None:
    assert asked("mute", "--for=1s", "r", "--json", "bob").words == ("bob",)
    assert asked("say", "r", "--json", "--", "--for").words == ("--for",)
    assert asked("say", "r", "-").words == ("-",)
    assert asked("delete", "r", "1", "22").words == ("1", "22")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ("", f"admin needs one of the commands {', '.join(WORDS)}"),
        ("hug r bob", f"admin needs one of the commands {', '.join(WORDS)}"),
        ("rooms r", "write it like ./chat.pyz admin rooms"),
        ("who", "write it like ./chat.pyz admin who ROOM"),
        ("who r s", "write it like ./chat.pyz admin who ROOM"),
        ("kick r", "write it like ./chat.pyz admin kick ROOM NAME"),
        ("say r", "write it like ./chat.pyz admin say ROOM TEXT|-"),
        ("delete r", "write it like ./chat.pyz admin delete ROOM ID…"),
        ("delete r x", "the id of a message is a number"),
        ("delete r 1 0", "the id of a message is a number"),
        ("delete r -1", "the id of a message is a number"),
        ("who a\x1b", "room may not contain control characters"),
        ("kick r a\u202e", "username may not contain invisible characters"),
        ("kick r bob --for 10m", "--for means nothing with kick: leave it out"),
        ("who r --reason x", "--reason means nothing with who: leave it out"),
        ("who r --all", "--all means nothing with who: leave it out"),
        ("say r x --output f", "--output means nothing with say: leave it out"),
        ("export r --json", "--json means nothing with export: leave it out"),
        ("mute r bob --for 10", "--for: '10' has no unit: write 10s, or another of ms, s, m, h, d"),
        ("mute r bob --for 0s", "--for: '0s' is out of range: give a duration from 1s to 36600d"),
        ("rooms --url x", "--url: no address of a server: write it like https://chat.example or "
         "http://localhost:3000"),
        ("rooms --url", "--url: needs a value; --help lists the options"),
        ("rooms --unix=", "--unix: an empty file name: give the path of a file"),
        ("rooms --url http://h --unix s", "--url and --unix exclude each other: give the one way to the "
         "server"),
        ("rooms --ca f", "--ca means nothing without TLS: give an https:// address by --url, or leave it "
         "out"),
        ("rooms --url https://h --ca /nowhere", "--ca /nowhere can't be used (No such file or directory): "
         "give a PEM file of certificates"),
        ("rooms --as a/\u202eb", "--as: username may not contain invisible characters"),
        ("rooms --token-file /nowhere", "--token-file /nowhere can't be read (No such file or directory): "
         "give a file with the token"),
        ("rooms --token-file /dev/null", "--token-file /dev/null: a token is one line of visible ASCII "
         "characters"),
        ("rooms --json=1", "--json: takes no value, but was given '1'"),
        (f"rooms --token {SECRET}", "unknown option '--token'; did you mean --token-file?"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_exit_code_2(arguments: str, why: str, capfd: Captured) -> None:
    assert cli.main(["admin", *arguments.split()], {}) == 2
    assert capfd.readouterr().err == f"chatroom: {why}\n"


def test_a_socket_of_the_environment_that_cannot_be_one(capfd: Captured) -> None:
    assert cli.main(["admin", "rooms"], {"CHATROOM_ADMIN_SOCKET": "x" * 108}) == 2
    assert capfd.readouterr().err == (
        "chatroom: CHATROOM_ADMIN_SOCKET: longer than the 107 bytes of a socket's name: use a shorter path\n"
    )


def test_a_token_that_no_header_can_hold_is_not_repeated(capfd: Captured) -> None:
    assert cli.main(["admin", "rooms"], {"CHATROOM_TOKEN": f"{SECRET}\u00e9"}) == 2
    said = capfd.readouterr().err
    assert said == "chatroom: CHATROOM_TOKEN: a token is one line of visible ASCII characters\n"


def test_help_has_every_command_and_option(capfd: Captured) -> None:
    assert cli.main(["admin", "--help"], {}) == 0
    out = capfd.readouterr().out
    for command, words in WORDS.items():
        assert f"./chat.pyz admin {command} {words}".rstrip() in out
    for option in ADMIN_OPTIONS:
        assert re.search(rf"^  {option.flag}\b", out, re.MULTILINE)


def test_a_command_imports_neither_trio_nor_the_server() -> None:
    code = (
        "import sys; from chatroom.cli import main; "
        "assert main(['admin', 'rooms', '--unix', '/nowhere']) == 75; "
        "sys.exit(bool({'trio', 'chatroom.server', 'sqlite3', 'h11'} & set(sys.modules)))"
    )
    environ = clean_environment(measured=False)  # coverage has a database
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environ, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


# What is asked, and what is shown


def test_rooms_come_by_pages_and_aligned(capfd: Captured) -> None:
    first = [{"room": "\u6c34", "members": 3, "last_id": 44, "last_ts": TS}]
    second = [{"room": HOSTILE, "members": 12, "last_id": 0}]
    pages = [answer({"rooms": first, "more": True}), answer({"rooms": second, "more": False})]
    with Answering(*pages) as server:
        assert admin(server, "rooms") == 0
    assert capfd.readouterr().out == (
        f"ROOM{' ' * (len(SHOWN) - 4)}  MEMBERS  LAST ID  LAST TIME\n"
        f"\u6c34{' ' * (len(SHOWN) - 2)}        3       44  {TIME}\n"
        f"{SHOWN}       12        0  \u2013\n"
    )
    lines = [head.splitlines()[0] for head, _ in server.requests]
    assert lines == ["GET /rooms?limit=200 HTTP/1.1", "GET /rooms?limit=200&after=%E6%B0%B4 HTTP/1.1"]


def test_members_are_a_name_a_line(capfd: Captured) -> None:
    with Answering(answer({"members": ["alice", HOSTILE, 7]})) as server:
        assert admin(server, "who", "a/b?") == 0
    assert capfd.readouterr().out == f"alice\n{SHOWN}\n7\n"
    assert server.requests[0][0].startswith("GET /rooms/a%2Fb%3F/members HTTP/1.1\n")


def test_sanctions_and_what_was_before(capfd: Captured) -> None:
    mute = {"action": "mute", "username": "bob", "by": "carol", "until": TS, "reason": HOSTILE}
    ban = {"action": "ban", "username": "eve", "by": "carol"}
    kick = {"id": 4, "ts": TS, "action": "kick", "username": "bob", "by": "carol"}
    with Answering(answer({"sanctions": [mute, ban], "past": [kick]})) as server:
        assert admin(server, "sanctions", "r", "--all") == 0
    assert capfd.readouterr().out.splitlines() == [
        "ACTION  NAME  BY     UNTIL                 REASON",
        f"mute    bob   carol  {TIME}  {SHOWN}",
        "ban     eve   carol  without end",
        "",
        "TIME                  ACTION  NAME  BY     UNTIL  REASON",
        f"{TIME}  kick    bob   carol",
    ]
    assert "GET /rooms/r/moderation?all=true HTTP/1.1" in server.requests[0][0]


@pytest.mark.parametrize("command", ["rooms", "who r", "sanctions r"])
def test_nothing_is_no_line(command: str, capfd: Captured) -> None:
    with Answering(answer({"rooms": [], "members": [], "sanctions": [], "more": False})) as server:
        assert admin(server, *command.split()) == 0
    assert capfd.readouterr() == ("", "")


def moderated(**data: object) -> bytes:
    return answer({"event": "moderated", "data": data, "room": "r", "id": 7, "ts": TS})


@pytest.mark.parametrize(
    ("arguments", "body", "reply", "shown"),
    [
        (
            "mute r bob --for 10m --reason x",
            {"action": "mute", "username": "bob", "seconds": 600, "reason": "x"},
            moderated(until=TS),
            f"muted bob in r until {TIME} (id 7)",
        ),
        ("ban r bob", {"action": "ban", "username": "bob"}, moderated(), "banned bob in r (id 7)"),
        ("kick r bob", {"action": "kick", "username": "bob"}, moderated(), "kicked bob in r (id 7)"),
        ("unban r bob", {"action": "unban", "username": "bob"}, moderated(), "unbanned bob in r (id 7)"),
        ("unmute r bob", {"action": "unmute", "username": "bob"}, answer({}),
         "nothing to do: bob isn't muted in r"),
        ("say r hi", {"text": "hi"}, answer({"id": 7}, "201 Created"), "said in r (id 7)"),
        ("say r - ", {"text": "h\u00e9\n"}, answer({"id": 7}, "201 Created"), "said in r (id 7)"),
    ],
)  # fmt: skip
def test_what_is_done_is_told(
    arguments: str,
    body: object,
    reply: bytes,
    shown: str,
    capfd: Captured,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO("h\u00e9\n".encode())))
    with Answering(reply) as server:
        assert admin(server, *arguments.split()) == 0
    assert capfd.readouterr() == (f"{shown}\n", "")
    head, sent = server.requests[0]
    assert json.loads(sent) == body
    assert re.search(r"^Idempotency-Key: [\w-]{16}$", head, re.MULTILINE)
    assert head.startswith("POST /rooms/r/")


def test_several_messages_are_deleted_until_one_cannot_be(capfd: Captured) -> None:
    entry = {"event": "deleted", "data": {"id": 1}, "id": 7}
    replies = [answer(entry), answer(entry | {"duplicate": True}), refusal("404 Not Found", "No such")]
    with Answering(*replies) as server:
        assert admin(server, "delete", "r", "1", "2", "3", "4") == 1
    out, err = capfd.readouterr()
    assert out == "1 is deleted (id 7)\n2 is deleted already (id 7)\n"
    assert err == "chatroom: No such (404)\n"
    assert server.requests[2][0].startswith("DELETE /rooms/r/messages/3 HTTP/1.1\n")


@pytest.mark.parametrize(
    ("arguments", "reply", "lines"),
    [
        ("rooms", {"rooms": [{"room": HOSTILE}, {"a": 1}], "more": False}, [{"room": HOSTILE}, {"a": 1}]),
        ("who r", {"members": [HOSTILE]}, [{"members": [HOSTILE]}]),
        ("sanctions r", {"sanctions": []}, [{"sanctions": []}]),
        ("kick r bob", {"id": 1}, [{"id": 1}]),
        ("say r x", {"id": 1}, [{"id": 1}]),
        ("delete r 1", {"id": 2}, [{"id": 2}]),
    ],
)  # fmt: skip
def test_json_for_programs(arguments: str, reply: object, lines: list[object], capfd: Captured) -> None:
    with Answering(answer(reply)) as server:
        assert admin(server, *arguments.split(), "--json") == 0
    out = capfd.readouterr().out
    assert out.isascii()
    assert out.replace("\n", "").isprintable()
    assert [json.loads(line) for line in out.splitlines()] == lines


def test_standard_input_that_is_no_text(monkeypatch: pytest.MonkeyPatch, capfd: Captured) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with Answering(refusal("400 Bad Request", "text is empty")) as server:
        assert admin(server, "say", "r", "-") == 1
    assert capfd.readouterr().err == "chatroom: text is empty (400)\n"
    for content, why in ((b"\xff", "is not UTF-8"), (b"x" * 2**23, "is longer than any text may be")):
        monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(content)))
        with Answering() as server:
            assert admin(server, "say", "r", "-") == 2
        assert capfd.readouterr() == ("", f"chatroom: standard input {why}\n")


# An export by pages


def item(number: int, **more: object) -> dict[str, object]:
    return {"id": number, "ts": TS, "username": "alice", "text": f"t{number}", **more}


def page(*items: object, more: bool = False) -> bytes:
    return answer({"messages": items, "more": more})


def test_an_export_has_all_messages_that_were_there_when_it_began(tmp_path: Path, capfd: Captured) -> None:
    output = tmp_path / "out"
    bob = {"action": "mute", "username": "bob", "by": "c", "until": TS, "reason": "x"}
    replies = [
        page(item(9), more=True),
        page(item(3, cid="c"), item(5, text="", deleted=6), more=True),
        page(item(9, edited=10), item(11), more=True),
        answer({"sanctions": [bob]}),
    ]
    with Answering(*replies) as server:
        assert admin(server, "export", "r", "--output", str(output)) == 0
    assert capfd.readouterr() == ("", f"chatroom: exported 3 messages of room r to {output}\n")
    head, *frames, end = [json.loads(line) for line in output.read_text().splitlines()]
    assert head["data"] == {
        "format": 1, "entries": "messages", "room": "r", "epoch": None, "first": 3, "last": 9,
    }  # fmt: skip
    data = {"username": "alice", "text": "t3"}
    assert frames[0] == {"event": "message", "data": data, "room": "r", "id": 3, "ts": TS, "cid": "c"}
    assert [(frame["id"], frame.get("edited"), frame.get("deleted")) for frame in frames[1:]] == [
        (5, None, 6), (9, 10, None),
    ]  # fmt: skip
    assert end["data"] == {"sanctions": [bob]}
    lines = [request.splitlines()[0].split()[1] for request, _ in server.requests]
    assert lines == [
        "/rooms/r/messages?limit=1",
        "/rooms/r/messages?limit=200&after=0",
        "/rooms/r/messages?limit=200&after=5",
        "/rooms/r/moderation",
    ]


def test_who_may_not_know_the_sanctions_gets_an_export_without(capfd: Captured) -> None:
    forbidden = refusal("403 Forbidden", "No right to moderate this room")
    with Answering(page(item(1)), page(item(1)), forbidden) as server:
        assert admin(server, "export", "r") == 0
    assert capfd.readouterr().out.splitlines()[-1] == '{"event":"sanctions","data":{},"room":"r"}'


def test_a_room_without_messages_has_no_export(capfd: Captured) -> None:
    with Answering(page()) as server:
        assert admin(server, "export", "r") == 1
    assert capfd.readouterr() == ("", "chatroom: there are no messages in room r\n")


def test_an_export_that_fails_leaves_no_file(tmp_path: Path, capfd: Captured) -> None:
    with Answering(page(item(1)), page(item(1), more=True), None, None) as server:
        assert admin(server, "export", "r", "--output", str(tmp_path / "out")) == 75
    assert list(tmp_path.iterdir()) == []


# What goes wrong


@pytest.mark.parametrize(
    ("reply", "code", "said"),
    [
        (refusal("401 Unauthorized", "Unauthorized"), 1, "Unauthorized (401)"),
        (refusal("403 Forbidden", HOSTILE), 1, f"{SHOWN[:-6]} (403)"),
        (refusal("503 Service Unavailable", "Restarting"), 75, "Restarting (503)"),
        (None, 75, "PLACE can't be reached: Remote end closed connection without response"),
        (answer({}), 75, "the server gives an answer that this version doesn't understand"),
        (answer({"rooms": [7], "more": False}), 75, "the server gives an answer that this version doesn't "
         "understand"),
        (answer({"rooms": [{"room": 7}], "more": False}), 75, "the server gives an answer that this version "
         "doesn't understand"),
    ],
)  # fmt: skip
def test_a_refusal_is_1_and_no_answer_75(reply: bytes | None, code: int, said: str, capfd: Captured) -> None:
    with Answering(reply) as server:
        assert admin(server, "rooms") == code
    assert capfd.readouterr() == ("", f"chatroom: {said.replace('PLACE', server.place.shown)}\n")


@pytest.mark.parametrize(
    ("arguments", "replies"),
    [
        ("who r", [answer({"members": "x"})]),
        ("sanctions r", [answer({"sanctions": [7]})]),
        ("kick r bob", [answer({"id": "x", "data": {}})]),
        ("say r x", [answer({"id": None})]),
        ("delete r 1", [answer({})]),
        ("export r", [page(7)]),
        ("export r", [page({"id": 1})]),
        ("export r", [page(item(1)), page(item(1)), answer({"sanctions": [{"action": "hug"}]})]),
    ],
)
def test_an_answer_that_makes_no_sense_is_75(arguments: str, replies: list[bytes], capfd: Captured) -> None:
    with Answering(*replies) as server:
        assert admin(server, *arguments.split()) == 75
    said = capfd.readouterr().err
    assert said == "chatroom: the server gives an answer that this version doesn't understand\n"


def test_a_time_that_cannot_be_is_shown_as_a_number(capfd: Captured) -> None:
    room = {"room": "r", "members": 0, "last_id": 0, "last_ts": 10**30}
    with Answering(answer({"rooms": [room], "more": False})) as server:
        assert admin(server, "rooms") == 0
    assert str(10**30) in capfd.readouterr().out
