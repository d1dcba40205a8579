"""`join` with a server that means it ill: nothing that it sends acts on the terminal."""

import re
from pathlib import Path

import pytest

from tests.support.faking import FakeServer, Frame, welcome
from tests.support.process import python_command
from tests.support.terminal import Terminal

HOSTILE = (
    "\x1b[2J\x1b[H\x1b[0m\x1b[31m\x1b[?1049h\x1b[?1000h\x1b[6n\x1b[c",
    "\x1b]0;title\x07\x1b]52;c;aGk=\x1b\\\x1bP+q\x1b\\\x1b",
    "\x9b2J\x90\x9d\x84a\rb\nc\x0bd\x08\x08\x07\x00\x7f",
    "\u202egnp\u2066x\u2069\u200f\u061c\u2028\u2029\ufffe\ufff9",
)
OURS = re.compile(
    rb"\x1b\[(\?(1|7|12|25|1004|2004)[hl]|[0-9]*[ABCD]|[0-9;]*m|0?[JK]|2J|H|0;0H)|\x07|[\r\n\b]|[^\x00-\x1f\x7f]"
)


def everywhere(text: str) -> list[Frame]:
    """Frames that have a text wherever there may be one."""

    def record(number: int, event: str, **data: object) -> Frame:
        ts = 1_764_000_000_000
        return {"event": event, "data": data, "room": text, "id": number, "ts": ts, "cid": text}

    def news(event: str, **data: object) -> Frame:
        return {"event": event, "data": data, "room": text}

    return [
        record(101, "message", username=text, text=text),
        record(102, "message", username="bob", text=f"/me {text}"),
        record(103, "edited", id=101, username=text, text=text, by=text),
        record(104, "deleted", id=101, username=text, by="bob"),
        record(105, "moderated", action=text, username=text, by=text, until=text, reason=text),
        record(106, "moderated", action="mute", username=text, by=text, reason=text),
        record(109, "message", username=text, text=text),
        record(110, text),
        *(news(event, username=text, active=True) for event in ("joined", "typing", "left")),
        news("members", members=[text, f"b{text}", f"@{text}", "bob"]),
        {"event": "error", "data": {"message": text}, "code": text},
        {"event": "expiring", "data": {"in": text}},
        news("typing", username=text, active=True),
    ]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("env", [{}, {"NO_COLOR": "1"}])
def test_nothing_that_a_server_sends_acts_on_the_terminal(
    pyz: Path, tmp_path: Path, text: str, env: dict[str, str]
) -> None:
    item = {"id": 7, "ts": 1_764_000_000_000, "username": text, "text": text}
    with FakeServer(
        welcome(text, text, last_id=100, replay=0, data={"members": [text, f"b{text}"]}, epoch=text),
        *everywhere(text),
        {"event": "message", "data": {"username": "bob", "text": "that was it"}, "id": 111, "room": text},
        rooms={"event": "rooms", "data": {"rooms": [{"room": text, "members": text}], "more": True}},
        members={"event": "members", "data": {"members": [text, f"b{text}"]}},
        history={"event": "history", "data": {"messages": [item], "more": True}},
        message={"event": "error", "data": {"message": text}, "code": "forbidden"},
        switch_room={"event": "error", "data": {"message": text}, "code": "forbidden"},
    ) as server:
        command = [*python_command(), "join", server.url, "--username", "alice"]
        mine = {"CHATROOM_TOKEN": "dev-token", "XDG_STATE_HOME": str(tmp_path)}
        with Terminal(command, env={**mine, **env}) as terminal:
            terminal.wait_for("bob: that was it")
            end = "\n" if env else "\r"
            for line in ("/rooms", "/members", "/last", "/history"):
                terminal.press(line + end)
            terminal.wait_for("── so far, and there is more: /history ──")
            terminal.press("said" + end)
            terminal.wait_for("* not done:")
            if not env:
                terminal.press("\x03")
                for begin in ("b", "@", "/switch ", "/kick ", text[:1]):
                    terminal.press(f"{begin}\t\t\x15")
            terminal.press("/switch elsewhere" + end)
            terminal.wait_for("* not in elsewhere:")
            server.close(4510, text[:40])
            assert terminal.wait() == 1
            assert terminal.is_as_before()
        rest = OURS.sub(b"", terminal.written)
        assert rest == b"", rest
        assert b"\a" not in terminal.written
        if env:
            assert b"\x1b" not in terminal.written
