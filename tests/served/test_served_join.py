"""`join` of the built file, at a real pseudo-terminal and at pipes, with a real server."""

from __future__ import annotations

import random
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import trio

from tests.support.client import Chat, Frame, target
from tests.support.cutter import Cutter
from tests.support.process import ServerProcess, clean_environment, python_command
from tests.support.raw import seed
from tests.support.relay import Relay
from tests.support.scene import Scene, Served, await_true, served
from tests.support.screen import Screen
from tests.support.terminal import Terminal

pytestmark = pytest.mark.usefixtures("measured")

TOKENS = """
[[token]]
token = "token-alice"

[[token]]
token = "keeper"
username = "carol"
rooms = { "*" = "rwm" }

[[token]]
token = "reader"
rooms = { "*" = "r" }
"""


@pytest.fixture(scope="module")
def server(pyz: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    file = tmp_path_factory.mktemp("tokens") / "tokens.toml"
    file.write_text(TOKENS)
    with served("--rate", "0", "--tokens", str(file), "--max-text", "100") as server:
        yield server


@pytest.fixture
def scene(server: Served) -> Iterator[Scene]:
    with Scene(server) as scene:
        yield scene


class Joiner:
    """Starts `join` for somebody, with a home of one's own."""

    def __init__(self, scene: Scene, home: Path) -> None:
        self.scene = scene
        self.home = home
        self.stack = ExitStack()
        scene.at_end(self.stack.close)

    def command(self, username: str = "alice", *options: str, url: str | None = None) -> list[str]:
        where = [url or self.scene.server.ws_url, "--room", self.scene.room, "--username", username]
        return [*python_command(), "join", *where, *options]

    def env(self, token: str = "token-alice", **more: str) -> dict[str, str]:
        return {"CHATROOM_TOKEN": token, "XDG_STATE_HOME": str(self.home / "state"), "TZ": "UTC", **more}

    def open(
        self,
        username: str = "alice",
        *options: str,
        url: str | None = None,
        token: str = "token-alice",
        columns: int = 80,
        rows: int = 24,
        **env: str,
    ) -> Terminal:
        """At a terminal, without waiting."""
        command = self.command(username, *options, url=url)
        terminal = Terminal(command, env=self.env(token, **env), columns=columns, rows=rows)
        return self.stack.enter_context(terminal)

    def enter(self, username: str = "alice", *options: str, **more: str) -> Terminal:
        """At a terminal, in the room."""
        terminal = self.open(username, *options, **more)  # type: ignore[arg-type]
        terminal.wait_for("you are in")
        return terminal

    def pipe(self, typed: str, *options: str, token: str = "token-alice") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command("alice", *options),
            env=clean_environment(self.env(token)),
            input=typed,
            text=True,
            capture_output=True,
            timeout=30,
            check=False,
        )


@pytest.fixture
def joiner(scene: Scene, tmp_path: Path) -> Joiner:
    return Joiner(scene, tmp_path)


@pytest.fixture
def bob(scene: Scene) -> Chat:
    return scene.join("bob")


def ends(*lines: str) -> Callable[[Screen], bool]:
    """Whether the screen ends in these lines."""

    def look(screen: Screen) -> bool:
        return [
            line.partition(":")[2].partition(":")[2][3:] if line[:2].isdigit() else line
            for line in screen.lines
        ][-len(lines) :] == list(lines)

    look.__qualname__ = repr(lines)
    return look


def heard(chat: Chat, number: int) -> list[str]:
    """The texts of the next messages, whoever comes, goes and types meanwhile."""
    return [str(meets(chat, "message")["data"]["text"]) for _ in range(number)]


def meets(chat: Chat, event: str, **data: object) -> Frame:
    """The next frame of this kind, whatever comes before it."""
    while (frame := chat.receive())["event"] != event:
        assert frame["event"] != "error", frame
    assert data.items() <= frame["data"].items(), frame
    return frame


# Talking


def test_what_is_said_is_heard_on_both_sides(joiner: Joiner, bob: Chat) -> None:
    room = joiner.scene.room
    alice = joiner.enter()
    meets(bob, "joined", username="alice")
    alice.press("hello 日本 🙂\r")
    assert heard(bob, 1) == ["hello 日本 🙂"]
    bob.say("good evening, e\u0301")
    alice.wait_for(ends("alice: hello 日本 🙂", "bob: good evening, e\u0301", f"#{room}>", "alice, 2 here"))
    alice.press("/quit\r")
    assert alice.wait() == 0
    assert alice.is_as_before()
    meets(bob, "left", username="alice")


def test_it_is_told_who_types(joiner: Joiner, bob: Chat) -> None:
    alice = joiner.enter()
    meets(bob, "joined")
    alice.press("h")
    meets(bob, "typing", username="alice", active=True)
    alice.press("i b\t")
    alice.wait_for("hi bob")
    alice.press("\x03")
    meets(bob, "typing", username="alice", active=False)
    bob.send("typing", active=True)
    alice.wait_for("alice, 2 here · bob is typing …")
    bob.say("x")
    alice.wait_for(ends("bob: x", f"#{joiner.scene.room}>", "alice, 2 here"))


def test_who_may_only_read_is_told_nothing_of_typing(joiner: Joiner, bob: Chat) -> None:
    alice = joiner.enter(token="reader")  # type: ignore[arg-type]
    meets(bob, "joined")
    alice.press("hello\r")
    alice.wait_for("* not done: Not allowed in this room")
    bob.say("x")
    assert bob.receive()["event"] == "message"
    alice.wait_for("bob: x")
    assert alice.screen.text.count("Not allowed") == 1


def test_a_paste_of_many_lines_is_one_message(joiner: Joiner, bob: Chat) -> None:
    alice = joiner.enter()
    alice.paste("def f():\n    return 1\n")
    alice.press("\x7f # so\r")
    assert heard(bob, 1) == ["def f():\n    return 1 # so"]
    alice.wait_for("alice: def f():\n               return 1 # so\n")


def test_names_and_commands_are_completed(joiner: Joiner, bob: Chat) -> None:
    alice = joiner.enter()
    alice.press("/mem\t\r")
    alice.wait_for("* 2 here: alice, bob")
    alice.press("@b\tlook\r")
    assert heard(bob, 1) == ["@bob look"]
    carol = joiner.scene.join("bobby")
    alice.wait_for("bobby has joined")
    alice.press("bo\t\t\t\r")
    assert heard(bob, 1) == heard(carol, 2)[1:] == ["bob"]


def test_rooms_are_switched(joiner: Joiner, bob: Chat) -> None:
    other = f"{joiner.scene.room}-b"
    carol = joiner.scene.join("carol", other, token="keeper")
    carol.say("here")
    carol.messages(1)
    alice = joiner.enter()
    alice.press(f"/switch {other[:-1]}")
    alice.wait_for(
        lambda screen: alice.press("\t") or f"/switch {other}" in screen.text
    )  # once the list is there
    alice.press("\r")
    alice.wait_for(f"you are in {other} as alice; 2 here: alice, carol")
    alice.wait_for("carol: here")
    alice.press("to you\r")
    assert heard(carol, 1) == ["to you"]
    meets(bob, "left", username="alice")
    bob.say("meanwhile")
    bob.messages(1)
    alice.press(f"/switch {joiner.scene.room}\r")
    alice.wait_for("bob: meanwhile")
    alice.press("/switch a\u202eb\r")
    alice.wait_for("* not in a\\u202eb: ")


def test_the_rooms_are_listed(joiner: Joiner, bob: Chat) -> None:
    alice = joiner.enter()
    alice.press("/rooms\r")
    alice.wait_for(f"  {joiner.scene.room}  2 here")
    alice.wait_for(" rooms:\n")


def test_messages_are_edited_deleted_and_found_again(joiner: Joiner, bob: Chat) -> None:
    for number in range(60):
        bob.say(f"old {number}")
    bob.messages(60)
    alice = joiner.enter()
    alice.wait_for("old 59")
    assert "old 9\n" not in alice.screen.text
    alice.press("/history 3\r")
    alice.wait_for("── so far, and there is more: /history ──")
    assert "#10 " in alice.screen.text
    alice.press("/last 2\r")
    alice.wait_for("── up to now ──")
    assert "#59 " in alice.screen.text
    assert "#60 " in alice.screen.text
    alice.press("mine\r")
    alice.wait_for("alice: mine")
    alice.press("/edit mine, better\r")
    assert meets(bob, "edited")["data"]["text"] == "mine, better"
    alice.wait_for("alice edited 61: mine, better")
    alice.press("/delete\r")
    assert meets(bob, "deleted")["data"]["id"] == 61
    alice.wait_for("alice deleted 61")
    alice.press("/delete #5\r")
    alice.wait_for("* not done: ")


def test_an_action_is_shown_as_one(joiner: Joiner, bob: Chat) -> None:
    alice = joiner.enter()
    alice.press("/me waves\r//me\r")
    assert heard(bob, 2) == ["/me waves", "/me"]
    alice.wait_for("~ alice waves")
    alice.wait_for("alice: /me")


def test_a_command_that_isnt_one_is_never_said(joiner: Joiner, bob: Chat) -> None:
    alice = joiner.enter()
    alice.press("/swich there\r")
    alice.wait_for("there is no command /swich")
    alice.wait_for(ends(f"#{joiner.scene.room}> /swich there", "alice, 2 here"))
    alice.press("\x03after\r")
    assert heard(bob, 1) == ["after"]


def test_what_is_refused_is_not_lost(joiner: Joiner) -> None:
    alice = joiner.enter()
    text = "x" * 101
    alice.press(f"{text}\r")
    alice.wait_for("* not done: text is longer than 100 characters")
    alice.wait_for(lambda screen: screen.text.count("x" * 50) >= 2)
    alice.press("\x7f\r")
    alice.wait_for("alice: xxx")


def test_much_that_is_refused_is_shown_in_part(joiner: Joiner) -> None:
    alice = joiner.enter()
    alice.paste("line\n" * 100 + "end")
    alice.press("\r")
    alice.wait_for("    … and 81 more lines\n")
    alice.wait_for("end\nalice, 1 here")


def test_moderators_moderate(joiner: Joiner, bob: Chat) -> None:
    carol = joiner.enter("carol", token="keeper")
    meets(bob, "joined")
    carol.press("/mute bob 10m too loud\r")
    assert meets(bob, "moderated")["data"]["reason"] == "too loud"
    carol.wait_for("carol muted bob until")
    carol.press("/unmute bob\r")
    carol.wait_for("carol unmuted bob")
    carol.press("/kick bob\r")
    assert bob.closing()[0] == 4510
    carol.wait_for("bob has left")


def test_whoever_is_called_hears_it(joiner: Joiner, bob: Chat) -> None:
    alice = joiner.enter()
    bob.say("all of you")
    bob.say("and @Alice!")
    alice.wait_for("@Alice!")
    assert alice.written.count(b"\a") == 1


# Coming, going, and being sent away


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_and_gives_the_terminal_back(
    joiner: Joiner, bob: Chat, number: signal.Signals
) -> None:
    alice = joiner.enter()
    alice.press("half a line")
    alice.wait_for("half a line")
    alice.process.send_signal(number)
    if number == signal.SIGINT:  # as the key: it clears the line first
        alice.wait_for(lambda screen: "half a line" not in screen.text)
        alice.process.send_signal(number)
    assert alice.wait() == 0
    assert alice.is_as_before()
    meets(bob, "left", username="alice")


def test_who_is_kicked_is_told_why_and_the_terminal_is_as_before(joiner: Joiner) -> None:
    carol = joiner.scene.join("carol", token="keeper")
    alice = joiner.enter()
    carol.send("moderate", action="kick", username="alice", reason="too \x1b[31m loud")
    assert alice.wait() == 1
    assert alice.is_as_before()
    assert alice.screen.lines[-1].startswith("chatroom: ")
    assert "too \\u001b[31m loud" in alice.screen.lines[-1]


def test_a_wrong_token_is_one_line(joiner: Joiner) -> None:
    alice = joiner.open(token="guess")
    assert alice.wait() == 1
    assert alice.is_as_before()
    assert alice.screen.lines == ["chatroom: Unauthorized (401)"]
    assert b"guess" not in alice.written


def test_a_token_is_asked_for_and_isnt_seen(joiner: Joiner) -> None:
    alice = joiner.open(token="", HOME=str(joiner.home))
    alice.wait_for("Token for ")
    alice.press("token-alice\r")
    alice.wait_for("you are in")
    alice.press("my token is token-alice\r")
    alice.wait_for("alice: my token is")
    alice.press("\x04")
    assert alice.wait() == 0
    state = joiner.home / "state" / "chatroom"
    assert all("token-alice" not in path.read_text() for path in state.iterdir())
    assert alice.written.count(b"token-alice") == alice.written.count(b"my token is token-alice")


def test_the_process_list_has_no_token(joiner: Joiner) -> None:
    alice = joiner.enter()
    assert b"token-alice" not in Path(f"/proc/{alice.process.pid}/cmdline").read_bytes()


def test_typed_lines_come_back_in_the_next_run(joiner: Joiner) -> None:
    for typed, before in (("one", []), ("two", ["one"])):
        alice = joiner.enter()
        alice.press("\x1b[A" * len(before))
        for line in before:
            alice.wait_for(f"> {line}")
        alice.press(f"\x15{typed}\r")
        alice.wait_for(f"alice: {typed}")
        alice.press("\x04")
        assert alice.wait() == 0
    state = joiner.home / "state" / "chatroom"
    assert stat.S_IMODE((state / "history").stat().st_mode) == 0o600
    assert (state / "history").read_text() == '"one"\n"two"\n'
    assert stat.S_IMODE((state / "seen.json").stat().st_mode) == 0o600


def test_a_line_marks_what_is_new_since_the_last_visit(joiner: Joiner, bob: Chat) -> None:
    bob.say("seen")
    bob.messages(1)
    alice = joiner.enter()
    alice.wait_for("bob: seen")
    assert "── new ──" not in alice.screen.text
    alice.press("\x04")
    assert alice.wait() == 0
    bob.say("unseen")
    bob.say("this too")
    bob.messages(2)
    alice = joiner.enter()
    alice.wait_for(
        ends(
            "bob: seen",
            "── new ──",
            "bob: unseen",
            "bob: this too",
            f"#{joiner.scene.room}>",
            "alice, 2 here",
        )
    )


def test_a_line_marks_what_came_while_the_person_looked_away(joiner: Joiner, bob: Chat) -> None:
    alice = joiner.enter()
    alice.press("\x1b[Ox")
    alice.wait_for("> x")
    bob.say("unseen")
    alice.wait_for("bob: unseen")
    alice.press("\x1b[Iy")
    alice.wait_for("> xy")
    bob.say("seen")
    room = joiner.scene.room
    alice.wait_for(ends("── new ──", "bob: unseen", "bob: seen", f"#{room}> xy", "alice, 2 here"))


def test_the_window_is_resized_in_the_middle_of_a_line(joiner: Joiner, bob: Chat) -> None:
    room = joiner.scene.room
    alice = joiner.enter(columns=80, rows=24)  # type: ignore[arg-type]
    alice.press("a line that is quite long for what comes")
    alice.wait_for("what comes")
    alice.resize(30, 10)
    bob.say("said meanwhile")
    alice.wait_for(lambda screen: screen.lines[-1] == "alice, 2 here" and "said meanwhile" in screen.text)
    alice.resize(100, 30)
    alice.press(".\r")
    assert heard(bob, 2) == ["said meanwhile", "a line that is quite long for what comes."]
    alice.wait_for(ends("alice: a line that is quite long for what comes.", f"#{room}>", "alice, 2 here"))


# Connections that are lost


def test_a_restart_in_the_middle_loses_nothing(pyz: Path, tmp_path: Path) -> None:
    database = str(tmp_path / "chat.db")
    with ExitStack() as stack:
        server = stack.enter_context(ServerProcess("--db", database))
        env = {"CHATROOM_TOKEN": "dev-token", "XDG_STATE_HOME": str(tmp_path / "state")}
        command = [*python_command(), "join", server.ws_url, "--username", "alice"]
        alice = stack.enter_context(Terminal(command, env=env))
        alice.wait_for("you are in general")
        alice.press("before\r")
        alice.wait_for("alice: before")
        assert server.stop() == 0
        alice.wait_for("* disconnected: ")
        alice.wait_for("trying again in")
        alice.press("meanwhile\r")
        alice.wait_for("1 to be sent")
        stack.enter_context(ServerProcess("--db", database, "--port", str(server.port)))
        alice.wait_for("* connected again", seconds=40)
        alice.wait_for("alice: meanwhile")
        assert alice.screen.text.count("alice: before") == 1
        alice.press("\x04")
        assert alice.wait() == 0


def test_another_history_is_told(pyz: Path, tmp_path: Path) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(ServerProcess("--db", "none"))
        env = {"CHATROOM_TOKEN": "dev-token", "XDG_STATE_HOME": str(tmp_path / "state")}
        command = [*python_command(), "join", server.ws_url, "--username", "alice"]
        alice = stack.enter_context(Terminal(command, env=env))
        alice.wait_for("you are in general")
        alice.press("before\r")
        alice.wait_for("alice: before")
        server.stop()
        stack.enter_context(ServerProcess("--db", "none", "--port", str(server.port)))
        alice.wait_for("* the history was replaced", seconds=40)
        alice.press("/history\r")
        alice.wait_for("* there is nothing before that")
        alice.press("/delete\r")
        alice.wait_for("* you have said nothing here that is known")
        assert "── new ──" not in alice.screen.text


def test_what_is_missed_is_marked_when_it_is_back(joiner: Joiner, bob: Chat) -> None:
    with Relay(joiner.scene.server.port) as relay:
        alice = joiner.enter(url=f"ws://127.0.0.1:{relay.port}")
        relay.refusing = True
        relay.cut()
        alice.wait_for("* disconnected: ")
        bob.say("missed")
        bob.messages(1)
        relay.refusing = False
        alice.wait_for("* connected again", seconds=40)
        alice.wait_for(ends("── new ──", "bob: missed", f"#{joiner.scene.room}>", "alice, 2 here"))


def test_who_leaves_without_a_connection_is_told_what_isnt_sent(joiner: Joiner) -> None:
    with Relay(joiner.scene.server.port) as relay:
        alice = joiner.enter(url=f"ws://127.0.0.1:{relay.port}")
        relay.refusing = True
        relay.cut()
        alice.wait_for("* disconnected: ")
        alice.press("into the void\r")
        alice.wait_for("1 to be sent")
        alice.press("\x04\x04")
        assert alice.wait() == 1
        assert alice.screen.lines[-2:] == ["* not known to be stored:", "    into the void"]


def test_who_has_typed_very_much_without_a_connection_can_still_leave(joiner: Joiner) -> None:
    alice = joiner.open(url="ws://127.0.0.1:1")
    alice.wait_for("* no connection: Connection refused")
    alice.press("".join(f"line {number}\r" for number in range(101)))
    alice.wait_for("* not done: 100 wait to be sent already:")
    alice.wait_for(lambda screen: screen.lines[-2] == "line 100")
    alice.press("\x03\x04\x04")
    assert alice.wait() == 1
    assert alice.screen.lines[-1] == "    line 99"


def test_a_paste_without_marks_can_be_stopped(joiner: Joiner) -> None:
    with Relay(joiner.scene.server.port) as relay:
        alice = joiner.enter(url=f"ws://127.0.0.1:{relay.port}")
        relay.part()
        alice.press("".join(f"line {number}\r" for number in range(150)))
        alice.wait_for("sending 100")
        alice.press("\x03\x03")
        assert alice.wait() == 1
        assert alice.screen.lines[-1] == "* not done, since you leave: 50 lines"


def test_a_change_means_a_message_of_the_room_it_is_typed_for(joiner: Joiner, bob: Chat) -> None:
    other = f"{joiner.scene.room}-b"
    alice = joiner.enter()
    alice.press(f"/switch {other}\r")
    alice.wait_for(f"you are in {other}")
    alice.press(f"b1\rb2\rb3\r/switch {joiner.scene.room}\r")
    alice.wait_for(f"you are in {joiner.scene.room} as alice", seconds=20)
    alice.press(f"a1\ra2\r/switch {other}\r/delete\r")
    alice.wait_for("alice deleted 3")
    assert heard(bob, 2) == ["a1", "a2"]
    alice.press(f"/switch {joiner.scene.room}\rbye\r")
    assert heard(bob, 1) == ["bye"]  # and nothing is deleted here


def test_it_waits_for_a_server_that_isnt_there_yet(joiner: Joiner) -> None:
    alice = joiner.open(url="ws://127.0.0.1:1")
    alice.wait_for("* no connection: Connection refused")
    alice.wait_for("trying again in")
    alice.press("\x03")
    assert alice.wait() == 0
    assert alice.is_as_before()


def test_a_terminal_that_is_gone_ends_it(joiner: Joiner, bob: Chat) -> None:
    alice = joiner.enter()
    meets(bob, "joined")
    alice.hang_up()
    assert alice.wait() == 0
    meets(bob, "left", username="alice")


def test_a_terminal_that_is_gone_ends_it_whatever_waits(joiner: Joiner) -> None:
    with Relay(joiner.scene.server.port) as relay:
        command = joiner.command(url=f"ws://127.0.0.1:{relay.port}")
        deaf = ["sh", "-c", "trap '' HUP; exec \"$@\"", "sh", *command]
        with Terminal(deaf, env=joiner.env()) as alice:
            alice.wait_for("you are in")
            relay.part()
            alice.press("".join(f"line {number}\r" for number in range(150)))
            alice.wait_for("sending 100")
            alice.hang_up()
            assert alice.wait() == 1


# Plain lines


@pytest.mark.parametrize("env", [{"TERM": "dumb"}, {"TERM": ""}, {"NO_COLOR": "1"}])
def test_a_plain_terminal_gets_no_escape_sequence(joiner: Joiner, bob: Chat, env: dict[str, str]) -> None:
    alice = joiner.enter(**env)
    alice.press("hello\n/members\nno\n")
    assert heard(bob, 2) == ["hello", "no"]
    alice.wait_for("* 2 here: alice, bob")
    bob.say("\x1b[2J \x07")
    alice.wait_for("bob: \\x1b[2J \\x07")
    alice.press("\x04")
    assert alice.wait() == 0
    assert not set(b"\x1b\a\x08\x9b") & set(alice.written)


def test_the_editor_can_be_wanted_and_not_wanted(joiner: Joiner) -> None:
    alice = joiner.enter("alice", "--editor", "on", NO_COLOR="1")
    assert 2004 in alice.screen.modes
    assert all(colours in {"", "0", "0;1", "0;2"} for colours in alice.screen.colours)
    plain = joiner.enter("alice", "--editor=off")
    assert b"\x1b" not in plain.written


def test_lines_of_a_pipe_are_all_stored_before_it_ends(joiner: Joiner, bob: Chat) -> None:
    done = joiner.pipe("".join(f"line {number}\n" for number in range(150)))
    assert (done.returncode, done.stderr) == (0, "")
    assert heard(bob, 150) == [f"line {number}" for number in range(150)]
    assert "\x1b" not in done.stdout
    assert done.stdout.count("alice: line") == 150


async def test_lines_are_stored_and_shown_once_through_a_network_that_breaks(
    pyz: Path, tmp_path: Path
) -> None:
    lines = [f"line {number}" for number in range(100)]  # more bytes than get through between five cuts
    async with ServerProcess("--db", "none", "--rate", "0") as server, trio.open_nursery() as nursery:
        cutter = Cutter(server.port, random.Random(seed()), most=3000)
        await nursery.start(cutter.run)

        async def calm() -> None:
            while cutter.cuts < 5:  # noqa: ASYNC110  (a cutter has no event for it)
                await trio.sleep(0.01)
            cutter.calm = True

        chat = await trio.to_thread.run_sync(
            Chat, server.ws_url + target("general", "bob", token="dev-token")
        )
        nursery.start_soon(calm)
        done = await trio.run_process(
            [*python_command(), "join", f"ws://127.0.0.1:{cutter.port}", "--username", "alice"],
            env=clean_environment({"CHATROOM_TOKEN": "dev-token", "XDG_STATE_HOME": str(tmp_path)}),
            stdin="\n".join(lines).encode(),
            capture_stdout=True,
        )
        assert await trio.to_thread.run_sync(heard, chat, 100) == lines
        await trio.to_thread.run_sync(chat.close)
        nursery.cancel_scope.cancel()
    shown = done.stdout.decode().splitlines()
    assert [line.partition("alice: ")[2] for line in shown if "alice: line" in line] == lines
    assert cutter.cuts >= 5


def test_a_pipe_with_nothing_enters_and_leaves(joiner: Joiner) -> None:
    done = joiner.pipe("")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"* you are in {joiner.scene.room} as alice; 1 here: alice\n"


@pytest.mark.parametrize(
    ("typed", "token", "said"),
    [
        ("x" * 101, "token-alice", "* not done: text is longer than 100 characters"),
        ("hello", "reader", "* not done: Not allowed in this room"),
        ("/swich", "token-alice", "* there is no command /swich"),
        ("/delete", "token-alice", "* you have said nothing here that is known"),
    ],
)
def test_a_pipe_whose_lines_are_refused_ends_with_1(
    joiner: Joiner, typed: str, token: str, said: str
) -> None:
    done = joiner.pipe(f"{typed}\nafter\n", token=token)
    assert done.returncode == 1
    assert said in done.stdout


def test_a_pipe_changes_what_it_has_said_last(joiner: Joiner, bob: Chat) -> None:
    done = joiner.pipe("one\ntwo\n/delete\n/edit #1 uno\n/edit UNO\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert heard(bob, 2) == ["one", "two"]
    assert meets(bob, "deleted")["data"]["id"] == 2
    assert [meets(bob, "edited", id=1)["data"]["text"] for _ in range(2)] == ["uno", "UNO"]


def test_an_output_that_cant_be_written_is_told(joiner: Joiner) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            joiner.command(),
            env=clean_environment(joiner.env()),
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=30,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == "chatroom: standard output can't be written (No space left on device)\n"


def test_a_reader_that_is_gone_ends_it(joiner: Joiner, bob: Chat) -> None:
    with subprocess.Popen(
        joiner.command(), env=clean_environment(joiner.env()), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        bob.say("x")
        assert process.wait(30) == 0


# Options


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "join needs the address of a server"),
        (["ws://localhost:1", "--editor", "maybe"], "--editor"),
        (["ws://localhost:1", "--editor", "on"], "--editor on needs a terminal"),
        (["ws://localhost:1", "--edit"], "unknown option '--edit'"),
    ],
)
def test_a_mistake_is_one_line(pyz: Path, options: list[str], said: str) -> None:
    done = subprocess.run(
        [*python_command(), "join", *options],
        env=clean_environment({"CHATROOM_TOKEN": "dev-token"}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert said in done.stderr


def test_what_edits_lines_is_imported_only_there(pyz: Path, joiner: Joiner) -> None:
    env = clean_environment({**joiner.env(), "PYTHONVERBOSE": "1"})
    done = subprocess.run(
        joiner.command(),
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0
    assert "import 'chatroom.client.conversation'" in done.stderr
    for library in ("prompt_toolkit", "wcwidth", "asyncio"):
        assert f"import '{library}'" not in done.stderr


def test_it_does_nothing_while_nothing_happens(joiner: Joiner) -> None:
    alice = joiner.enter()

    def ticks() -> int:
        fields = Path(f"/proc/{alice.process.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    def switches() -> int:
        text = Path(f"/proc/{alice.process.pid}/status").read_text()
        return sum(int(line.split()[1]) for line in text.splitlines() if "ctxt_switches" in line)

    await_true(
        lambda: "R" not in Path(f"/proc/{alice.process.pid}/stat").read_text().rpartition(")")[2][:3],
        "it rests",
    )
    before = (ticks(), switches())
    with pytest.raises(AssertionError, match="never"):
        alice.wait_for("never", seconds=3)
    after = (ticks(), switches())
    assert after[0] - before[0] <= 5, "hundredths of a second"
    assert after[1] - before[1] <= 20
