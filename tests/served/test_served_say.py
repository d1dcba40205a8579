"""The built server and `say`: stored once, whatever happens; what it prints, and how it ends."""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from tests.support.client import Chat, target
from tests.support.commands import Command, Done, environment, run
from tests.support.process import ROOT, ServerProcess, clean_environment, python_command
from tests.support.scene import await_true

STORED, REFUSED, MISTAKE, UNKNOWN = 0, 1, 2, 75
NOWHERE = "ws://127.0.0.1:1"


@pytest.fixture
def server(pyz: Path, tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess("--db", str(tmp_path / "chat.db"), "--rate", "0") as server:
        yield server


def texts(tmp_path: Path, room: str = "general") -> list[tuple[str, str]]:
    """Who has said what."""
    done = subprocess.run(
        [*python_command(), "export", "--db", str(tmp_path / "chat.db"), room],
        env=clean_environment(measured=False), capture_output=True, check=True, text=True,
    )  # fmt: skip
    frames = [json.loads(line) for line in done.stdout.splitlines()]
    return [(each["data"]["username"], each["data"]["text"]) for each in frames if each["event"] == "message"]


def outbox(tmp_path: Path) -> str:
    """What waits in the outboxes."""
    return "".join(path.read_text() for path in (tmp_path / "chatroom").glob("outbox-*.jsonl"))


def test_all_of_standard_input_is_one_message(server: ServerProcess, tmp_path: Path) -> None:
    done = run(tmp_path, "say", server.ws_url, "--username", "ci", given="  deploy done\non three hosts \n\n")
    assert done == (STORED, "stored as 1 in general\n", "")
    assert texts(tmp_path) == [("ci", "deploy done\non three hosts")]
    assert outbox(tmp_path) == ""


def test_each_line_is_a_message(server: ServerProcess, tmp_path: Path) -> None:
    given = "".join(f"{number}\n\n" for number in range(1500)) + "and a last one"
    done = run(tmp_path, "say", server.ws_url, "--room", "ops", "--lines", given=given)
    assert done == (STORED, "stored 1501 messages, the last as 1501 in ops\n", "")
    assert [text for _, text in texts(tmp_path, "ops")] == [*map(str, range(1500)), "and a last one"]


def test_lines_are_said_as_they_come(server: ServerProcess, tmp_path: Path) -> None:
    say = Command(tmp_path, "say", server.ws_url, "--username", "ci", "--lines")
    with closing(Chat(server.ws_url + target("general", "reader"))) as reader, say:
        for text in ("one", "two"):
            say.give(f"{text}\n")
            assert reader.messages(1)[0]["data"]["text"] == text
        assert say.end() == (STORED, "stored 2 messages, the last as 2 in general\n", "")


def test_the_same_twice_is_two_messages(server: ServerProcess, tmp_path: Path) -> None:
    for number in (1, 2):
        done = run(tmp_path, "say", server.ws_url, "--username", "ci", given="build failed")
        assert done.out == f"stored as {number} in general\n"


@pytest.mark.parametrize(
    ("given", "env", "code", "said"),
    [
        ("", {}, REFUSED, "there is nothing to say: standard input is empty"),
        (" \n \n", {}, REFUSED, "there is nothing to say: standard input is empty"),
        ("x" * 4001, {}, REFUSED, "refused: text is longer than 4000 characters"),
        ("x" * 70_000, {}, REFUSED, "refused: it is larger than this server takes"),
        ("hello", {"CHATROOM_TOKEN": "guess"}, REFUSED, "Unauthorized (401)"),
        (b"\xff\xfe", {}, MISTAKE, "standard input isn't UTF-8 (byte 1): nothing of it was said"),
    ],
)
def test_what_is_refused_ends_with_one_line(
    server: ServerProcess, tmp_path: Path, given: str, env: dict[str, str], code: int, said: str
) -> None:
    done = run(tmp_path, "say", server.ws_url, given=given, env=env)
    assert done == (code, "", f"chatroom: {said}\n")
    assert outbox(tmp_path) == ""


def test_a_refused_line_leaves_the_others(server: ServerProcess, tmp_path: Path) -> None:
    done = run(tmp_path, "say", server.ws_url, "--lines", given=f"one\n{'x' * 5000}\nthree\n")
    assert done.code == REFUSED
    assert done.err == "chatroom: message 2 refused: text is longer than 4000 characters; 2 stored\n"
    assert [text for _, text in texts(tmp_path)] == ["one", "three"]
    assert outbox(tmp_path) == ""


def test_a_retry_after_75_stores_once_and_what_waits_comes_first(pyz: Path, tmp_path: Path) -> None:
    with ServerProcess("--db", str(tmp_path / "chat.db")) as server:
        port, url = server.port, server.ws_url
    for text in ("first", "second", "first"):
        done = run(tmp_path, "say", url, "--username", "ci", "--timeout", "300ms", given=text)
        assert done.code == UNKNOWN
        assert done.err.startswith("chatroom: it isn't known whether it is stored: ")
        assert done.err.count("\n") == 1
    with ServerProcess("--db", str(tmp_path / "chat.db"), "--port", str(port)):
        assert run(tmp_path, "say", url, "--username", "ci", given="third").out == "stored as 3 in general\n"
        assert run(tmp_path, "say", url, "--username", "ci", given="second").out == "stored as 2 in general\n"
        assert run(tmp_path, "say", url, "--username", "ci", given="second").out == "stored as 4 in general\n"
        # Another name, another room: another outbox.
        assert (
            run(tmp_path, "say", url, "--username", "dave", given="first").out == "stored as 5 in general\n"
        )
    said = [("ci", "first"), ("ci", "second"), ("ci", "third"), ("ci", "second"), ("dave", "first")]
    assert texts(tmp_path) == said


def test_two_at_once_do_not_mix(server: ServerProcess, tmp_path: Path) -> None:
    arguments = ("say", server.ws_url, "--username", "ci", "--lines")
    with Command(tmp_path, *arguments) as one, Command(tmp_path, *arguments) as other:
        for name, say in (("a", one), ("b", other)):
            say.give("".join(f"{name}{number}\n" for number in range(200)), last=True)
        for say in (one, other):
            done = say.end()
            assert (done.code, done.err) == (STORED, "")
            assert done.out.startswith("stored 200 messages")
    said = [text for _, text in texts(tmp_path)]
    first = said[0][0]
    second = "ba"["ab".index(first)]
    assert said == [f"{name}{number}" for name in (first, second) for number in range(200)]


def test_an_outbox_that_another_one_has_is_waited_for(server: ServerProcess, tmp_path: Path) -> None:
    arguments = ("say", server.ws_url, "--username", "ci")
    with Command(tmp_path, *arguments, "--lines") as holder:
        await_true(lambda: list(tmp_path.glob("chatroom/*.lock")), "the outbox is taken")
        done = run(tmp_path, *arguments, "--timeout", "200ms", given="hello")
        assert done.code == UNKNOWN
        assert "nothing was said" in done.err
        assert holder.end().code == REFUSED, "it was given nothing"


def test_a_restart_of_the_server_goes_unnoticed(pyz: Path, tmp_path: Path) -> None:
    options = ("--db", str(tmp_path / "chat.db"), "--rate", "0")
    with ServerProcess(*options) as first:
        port = first.port
        say = Command(tmp_path, "say", first.ws_url, "--username", "ci", "--lines")
        with closing(Chat(first.ws_url + target("general", "reader"))) as reader:
            say.give("one\n")
            reader.messages(1)
        first.signal(signal.SIGKILL)
        first.wait()
    with say:
        say.give("two\n")
        with ServerProcess(*options, "--port", str(port)):
            say.give("three\n")
            assert say.end() == (STORED, "stored 3 messages, the last as 3 in general\n", "")
    assert texts(tmp_path) == [("ci", "one"), ("ci", "two"), ("ci", "three")]


def says_more(tmp_path: Path, settled: int) -> bool:
    """Whether more than so many messages of an outbox are settled."""
    return outbox(tmp_path).count('"id"') > settled


def test_killed_in_the_middle_it_is_tried_again(server: ServerProcess, tmp_path: Path) -> None:
    given = "".join(f"{number}\n" for number in range(300))
    for kills in range(6):
        with Command(tmp_path, "say", server.ws_url, "--username", "ci", "--lines") as say:
            say.give(given, last=True)
            if kills == 5:
                assert say.end().code == STORED
                break
            await_true(partial(says_more, tmp_path, outbox(tmp_path).count('"id"') + 20), "it gets on")
    assert [text for _, text in texts(tmp_path)] == given.split()
    assert outbox(tmp_path) == ""


def test_an_interrupt_tells_that_it_is_unknown(tmp_path: Path, pyz: Path) -> None:
    with Command(tmp_path, "say", NOWHERE, "--username", "ci") as say:
        say.give("hello", last=True)
        await_true(lambda: "hello" in outbox(tmp_path), "the message is in the outbox")
        say.process.terminate()
        done = say.end()
    assert done.code == UNKNOWN
    assert "interrupted" in done.err


# What it is given, and where it keeps it


def test_standard_input_that_does_not_wait_is_waited_for(server: ServerProcess, tmp_path: Path) -> None:
    for arguments in ((), ("--lines",)):
        mine, its = os.pipe()
        os.set_blocking(mine, False)
        command = [*python_command(), "say", server.ws_url, *arguments]
        with subprocess.Popen(command, env=environment(tmp_path), stdin=mine, stdout=subprocess.PIPE) as say:
            os.close(mine)
            time.sleep(0.6)  # it is to come to an empty pipe
            os.write(its, b"hello")
            os.close(its)
            assert say.communicate()[0].startswith(b"stored ")


def test_standard_input_that_can_not_be_read_is_a_mistake(pyz: Path, tmp_path: Path) -> None:
    for arguments in ((), ("--lines",)):
        with open(os.devnull, "wb") as given:
            done = subprocess.run(
                [*python_command(), "say", NOWHERE, *arguments],
                env=environment(tmp_path), stdin=given, capture_output=True, check=False,
            )  # fmt: skip
        assert done.returncode == MISTAKE
        assert done.stderr == b"chatroom: standard input can't be read (Bad file descriptor)\n"


@pytest.mark.parametrize("kind", ["pipe", "link", "folder"])
def test_an_outbox_that_is_no_file_is_told(pyz: Path, tmp_path: Path, kind: str) -> None:
    run(tmp_path, "say", NOWHERE, "--timeout", "100ms", given="hello")
    [path] = (tmp_path / "chatroom").glob("outbox-*.jsonl")
    path.unlink()
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "link":
            path.symlink_to("/dev/full")
        case _:
            path.mkdir()
    done = run(tmp_path, "say", NOWHERE, "--timeout", "100ms", given="hello")
    assert (done.code, done.out) == (MISTAKE, "")
    assert re.fullmatch(rf"chatroom: the outbox {path} can't be used \([^)]+\)\n", done.err)


def test_folders_on_the_way_to_the_outbox_are_made_for_the_owner_alone(pyz: Path, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        run(tmp_path / "new" / "state", "say", NOWHERE, "--timeout", "100ms", given="hello")
    finally:
        os.umask(before)
    made = [tmp_path / "new", tmp_path / "new" / "state", tmp_path / "new" / "state" / "chatroom"]
    assert [path.stat().st_mode & 0o777 for path in made] == [0o700] * 3


def test_what_can_not_be_noted_as_said_can_be_tried_again(pyz: Path, tmp_path: Path) -> None:
    with ServerProcess("--db", str(tmp_path / "chat.db")) as server:
        port, url = server.port, server.ws_url
    run(tmp_path, "say", url, "--username", "ci", "--timeout", "100ms", given="first")
    [path] = (tmp_path / "chatroom").glob("outbox-*.jsonl")
    obstacle = path.with_name(f"{path.name}.new")
    obstacle.mkdir()
    with ServerProcess("--db", str(tmp_path / "chat.db"), "--port", str(port)):
        done = run(tmp_path, "say", url, "--username", "ci", given="second")
        assert (done.code, done.out) == (UNKNOWN, "")
        assert done.err.startswith("chatroom: stored as 2, but the outbox ")
        assert done.err.count("\n") == 1
        obstacle.rmdir()
        assert run(tmp_path, "say", url, "--username", "ci", given="second").out == "stored as 2 in general\n"
    assert texts(tmp_path) == [("ci", "first"), ("ci", "second")]


# Answers


def test_an_answer_that_can_not_be_printed_can_be_asked_for_again(
    server: ServerProcess, tmp_path: Path
) -> None:
    asked = ("say", server.ws_url, "--username", "ci", "--wait", "^yes")
    with closing(Chat(server.ws_url + target("general", "bot"))) as bot:
        with (
            open("/dev/full", "wb") as full,
            subprocess.Popen(
                [*python_command(), *asked], env=environment(tmp_path),
                stdin=subprocess.PIPE, stdout=full, stderr=subprocess.PIPE,
            ) as say,
        ):  # fmt: skip
            assert say.stdin is not None
            say.stdin.write(b"is it?")
            say.stdin.close()
            say.stdin = None
            bot.messages(1)
            bot.say("yes")
            _, said = say.communicate()
        assert said.startswith(b"chatroom: stored as 1, but the answer can't be written")
        assert say.returncode == UNKNOWN
        assert run(tmp_path, *asked, given="is it?") == (STORED, "yes\n", "")


def test_a_pattern_that_takes_for_ever_holds_up_nothing(server: ServerProcess, tmp_path: Path) -> None:
    asked = ("say", server.ws_url, "--username", "ci", "--wait", "^(a+)+$")
    say = Command(tmp_path, *asked, "--timeout", "30s")
    with closing(Chat(server.ws_url + target("general", "bot"))) as bot, say:
        say.give("?", last=True)
        bot.messages(1)
        bot.say("a" * 40 + "!")
        bot.say("aaa")
        assert say.end(30) == (STORED, "aaa\n", "")


def test_that_no_answer_came_is_said_as_it_is(server: ServerProcess, tmp_path: Path) -> None:
    asked = ("say", server.ws_url, "--username", "ci", "--wait", "^yes", "--timeout", "500ms")
    done = run(tmp_path, *asked, given="is it?")
    said = "chatroom: stored as 1, but no answer has matched: none came in time\n"
    assert done == (UNKNOWN, "", said)


def test_an_answer_that_matches_is_printed(server: ServerProcess, tmp_path: Path) -> None:
    """Also under the same name, as where nobody gives one."""
    say = Command(tmp_path, "say", server.ws_url, "--username", "bot", "--wait", "^(yes|no|is) .*\\d+$")
    with closing(Chat(server.ws_url + target("general", "bot"))) as bot, say:
        say.give("is it a prime: 7", last=True)
        bot.messages(1)
        for text in ("let me think", "yes 7", "yes 8"):
            bot.say(text)
        assert say.end() == (STORED, "yes 7\n", "")


def test_a_retry_goes_on_waiting_and_finds_what_came_meanwhile(server: ServerProcess, tmp_path: Path) -> None:
    asked = ("say", server.ws_url, "--username", "ci", "--timeout", "600ms", "--wait", "^yes")
    done = run(tmp_path, *asked, given="is it?")
    assert done.code == UNKNOWN
    assert done.err.startswith("chatroom: stored as 1, but no answer has matched")
    with closing(Chat(server.ws_url + target("general", "bot"))) as bot:
        bot.say("yes")
        bot.messages(1)
    assert run(tmp_path, *asked, given="is it?") == (STORED, "yes\n", "")
    assert [text for _, text in texts(tmp_path)] == ["is it?", "yes"]


def test_an_answer_has_no_control_sequence(server: ServerProcess, tmp_path: Path) -> None:
    say = Command(tmp_path, "say", server.ws_url, "--username", "ci", "--wait", "yes")
    with closing(Chat(server.ws_url + target("general", "bot"))) as bot, say:
        say.give("?", last=True)
        bot.messages(1)
        bot.say("yes\x1b[31m\u202e\nand more")
        assert say.end() == (STORED, "yes\\x1b[31m\\u202e\nand more\n", "")


# Mistakes


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "say needs the address of a server"),
        (("localhost:3000",), "no address of a server"),
        (("ws://localhost:3000/?token=secret",), "no query"),
        (("ws://localhost:3000", "--token", "secret"), "unknown option '--token'"),
        (("ws://localhost:3000", "--token=secret"), "unknown option '--token'"),
        (("ws://localhost:3000", "--wait", "(secret"), "no regular expression"),
        (("ws://localhost:3000", "--timeout", "soon"), "--timeout"),
        (("ws://localhost:3000", "--room", ""), "--room"),
    ],
)
def test_a_mistake_is_one_line_and_repeats_no_secret(
    pyz: Path, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    done = run(tmp_path, "say", *arguments, given="hello")
    assert done.code == MISTAKE
    assert said in done.err
    assert "secret" not in done.err
    assert done.err.count("\n") == 1


def test_the_token_is_not_among_the_arguments(pyz: Path, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("token-of-a-file\n")
    with Command(tmp_path, "say", NOWHERE, "--token-file", str(tmp_path / "token")) as say:
        say.give("hello", last=True)
        await_true(lambda: "hello" in outbox(tmp_path), "the message is in the outbox")
        command = Path(f"/proc/{say.process.pid}/cmdline").read_bytes()
    assert b"token-of-a-file" not in command
    assert "token-of-a-file" not in outbox(tmp_path)


def test_the_certificate_is_checked(pyz: Path, tmp_path: Path) -> None:
    certificate = str(ROOT / "tests" / "support" / "localhost.pem")
    with ServerProcess("--db", "none", "--tls-cert", certificate, "--tls-key", certificate) as server:
        url = f"wss://localhost:{server.port}"
        done = run(tmp_path, "say", url, given="hello")
        assert done.code == REFUSED
        assert done.err.startswith("chatroom: its certificate isn't trusted")
        assert run(tmp_path, "say", url, "--ca", certificate, given="hello").out == "stored as 1 in general\n"
        plain = run(tmp_path, "say", url.replace("wss", "ws"), "--timeout", "2s", given="hello")
        assert plain.code in (REFUSED, UNKNOWN)
        assert plain.err.count("\n") == 1
    with ServerProcess("--db", "none") as server:
        done = run(tmp_path, "say", f"wss://localhost:{server.port}", given="hello")
        assert (done.code, done.err) == (
            REFUSED,
            "chatroom: what answers there doesn't speak TLS: is it ws:// instead of wss://?\n",
        )


def test_without_a_token_it_says_how_to_give_one(pyz: Path, tmp_path: Path) -> None:
    env = environment(tmp_path)
    del env["CHATROOM_TOKEN"]
    done = subprocess.run(
        [*python_command(), "say", NOWHERE], env=env, input=b"hello", capture_output=True, check=False
    )
    assert done.returncode == MISTAKE
    assert b"CHATROOM_TOKEN" in done.stderr


def test_it_is_quick(server: ServerProcess, tmp_path: Path) -> None:
    """It can't be told from outside how fast a busy machine is; but it doesn't wait for anything."""
    began = time.monotonic()
    assert run(tmp_path, "say", server.ws_url, given="hello") == Done(STORED, "stored as 1 in general\n", "")
    assert time.monotonic() - began < 20


TOKENS = """
[[token]]
token = "token-a"
username = "alice"

[[token]]
token = "token-b"
username = "bob"

[[token]]
token = "token-m"
username = "keeper"
rooms = { "*" = "rwm" }
"""


@pytest.fixture
def guarded(pyz: Path, tmp_path: Path) -> Iterator[ServerProcess]:
    """A server where tokens give the names, and a moderator may send people away."""
    (tmp_path / "tokens.toml").write_text(TOKENS)
    database, tokens = str(tmp_path / "chat.db"), str(tmp_path / "tokens.toml")
    with ServerProcess("--db", database, "--tokens", tokens, "--rate", "50") as server:
        yield server


def test_what_waits_for_one_person_is_not_said_by_another_one(guarded: ServerProcess, tmp_path: Path) -> None:
    def say(token: str, text: str, timeout: str = "30s") -> Done:
        arguments = ("say", guarded.ws_url, "--timeout", timeout)
        return run(tmp_path, *arguments, given=text, env={"CHATROOM_TOKEN": token})

    guarded.signal(signal.SIGSTOP)
    assert say("token-a", "I resign", "1s").code == UNKNOWN
    guarded.signal(signal.SIGCONT)
    assert say("token-b", "hello") == (STORED, "stored as 1 in general\n", "")
    assert say("token-a", "I resign") == (STORED, "stored as 2 in general\n", "")
    assert texts(tmp_path) == [("bob", "hello"), ("alice", "I resign")]
    assert outbox(tmp_path) == ""


def test_who_is_sent_away_in_the_middle_can_try_the_rest_again(
    guarded: ServerProcess, tmp_path: Path
) -> None:
    given = "".join(f"{number}\n" for number in range(300))
    alice = {"CHATROOM_TOKEN": "token-a"}
    keeper = Chat(guarded.ws_url + target("general", "keeper", token="token-m"))
    with closing(keeper), Command(tmp_path, "say", guarded.ws_url, "--lines", env=alice) as say:
        say.give(given, last=True)
        keeper.messages(3)
        keeper.send("moderate", action="kick", username="alice", reason="go away")
        done = say.end()
    assert done.code == UNKNOWN
    assert "sent away: go away. The same command again stores nothing twice\n" in done.err
    assert len(texts(tmp_path)) < 300
    assert run(tmp_path, "say", guarded.ws_url, "--lines", given=given, env=alice).code == STORED
    assert [text for _, text in texts(tmp_path)] == given.split()
