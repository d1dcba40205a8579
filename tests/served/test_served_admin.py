"""The built server and `admin`: at the admin socket, by tokens, and what neither lets anybody do."""

import json
import socket
import stat
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus

from chatroom.client.httpclient import UnixConnection
from tests.support.client import Chat, target
from tests.support.process import ServerProcess, StartFailed, clean_environment, python_command
from tests.support.scene import await_true

TOKENS = """
[[token]]
token = "alice-token"
username = "alice"
rooms = { general = "rw" }

[[token]]
token = "keeper"
username = "carol"
rooms = { general = "rwm" }

[[token]]
token = "reserved"
username = "operator"
"""


@pytest.fixture
def folder(pyz: Path, tmp_path: Path) -> Path:
    (tmp_path / "tokens.toml").write_text(TOKENS)
    return tmp_path


@pytest.fixture
def server(folder: Path) -> Iterator[ServerProcess]:
    with ServerProcess("--tokens", "tokens.toml", "--admin-socket", "admin.sock", cwd=folder) as server:
        yield server


def admin(
    server: ServerProcess, *arguments: str, token: str | None = None, given: str = ""
) -> tuple[int, str, str]:
    """The exit code of a command, and what it has written; at the admin socket, or by a token."""
    environ = clean_environment({} if token is None else {"CHATROOM_TOKEN": token})
    way = ["--unix", "admin.sock"] if token is None else ["--url", server.url]
    done = subprocess.run(
        [*python_command(), "admin", *way, *arguments], cwd=server.cwd, env=environ, input=given,
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def as_json(server: ServerProcess, *arguments: str, token: str | None = None) -> list[dict[str, object]]:
    code, out, err = admin(server, *arguments, "--json", token=token)
    assert (code, err) == (0, "")
    return [json.loads(line) for line in out.splitlines()]


def test_a_day_at_the_admin_socket(server: ServerProcess) -> None:
    alice = Chat(server.ws_url + target("general", "alice", "alice-token"))
    alice.say("buy my things")
    alice.expect("message")
    assert admin(server, "rooms", "--json")[0] == 0
    (room,) = as_json(server, "rooms")
    assert (room["room"], room["members"], room["last_id"]) == ("general", 1, 1)
    assert admin(server, "who", "general") == (0, "alice\n", "")

    assert admin(server, "delete", "general", "1") == (0, "1 is deleted (id 2)\n", "")
    assert alice.expect("deleted")["data"] == {"id": 1, "username": "alice", "by": "operator"}
    assert admin(server, "say", "general", "Be kind.") == (0, "said in general (id 3)\n", "")
    assert alice.expect("message")["data"] == {"username": "operator", "text": "Be kind."}
    assert admin(server, "say", "general", "-", "--as", "bob", given="two\nlines\n")[0] == 0
    assert alice.expect("message")["data"] == {"username": "bob", "text": "two\nlines"}

    code, out, _ = admin(server, "mute", "general", "alice", "--for", "10m", "--reason", "spam")
    assert (code, out.startswith("muted alice in general until 20")) == (0, True)
    muted = alice.expect("moderated")["data"]
    assert (muted["action"], muted["by"], muted["reason"]) == ("mute", "operator", "spam")
    (answer,) = as_json(server, "sanctions", "general")
    (mute,) = answer["sanctions"]  # type: ignore[misc]
    assert (mute["action"], mute["username"], mute["until"]) == ("mute", "alice", muted["until"])
    assert admin(server, "unmute", "general", "alice")[1] == "unmuted alice in general (id 6)\n"
    again = admin(server, "unmute", "general", "alice")
    assert again == (0, "nothing to do: alice isn't muted in general\n", "")
    assert admin(server, "unban", "general", "alice")[1].startswith("nothing to do")
    alice.expect("moderated")
    assert admin(server, "kick", "general", "alice")[0] == 0
    assert alice.closing()[0] == 4510
    (answer,) = as_json(server, "sanctions", "general", "--all")
    assert [each["action"] for each in answer["past"]] == ["mute", "unmute", "kick"]  # type: ignore[attr-defined]


def test_the_socket_is_for_its_owner_alone_and_goes_with_the_server(server: ServerProcess) -> None:
    path = Path(str(server.cwd), "admin.sock")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert server.stop() == 0
    await_true(lambda: "Administration on unix:admin.sock" in server.lines, "its line is read")
    assert not path.exists()
    assert admin(server, "rooms") == (
        75, "", "chatroom: unix:admin.sock can't be reached: No such file or directory\n"
    )  # fmt: skip


def test_a_token_gives_what_it_gives_and_no_more(server: ServerProcess) -> None:
    assert admin(server, "say", "general", "hi", token="alice-token")[0] == 0
    for command in ("kick general bob", "sanctions general"):
        assert admin(server, *command.split(), token="alice-token") == (
            1, "", "chatroom: No right to moderate this room (403)\n"
        )  # fmt: skip
    assert admin(server, "ban", "general", "bob", token="keeper")[0] == 0
    (answer,) = as_json(server, "sanctions", "general", token="keeper")
    assert [each["by"] for each in answer["sanctions"]] == ["carol"]  # type: ignore[attr-defined]
    refused = admin(server, "ban", "general", "carol", token="keeper")
    assert refused == (1, "", "chatroom: A moderator can't be sanctioned (403)\n")
    assert admin(server, "ban", "ops", "bob", token="keeper")[0] == 1
    assert admin(server, "rooms", token="wrong") == (1, "", "chatroom: Unauthorized (401)\n")
    assert admin(server, "delete", "general", "99", token="alice-token") == (
        1, "", "chatroom: There is no such message (404)\n"
    )  # fmt: skip
    assert "alice-token" not in server.stderr


def test_no_token_opens_the_admin_socket_of_the_others(folder: Path) -> None:
    """What the admin socket allows isn't to be had at the other listeners, whatever is claimed there."""
    with ServerProcess(
        "--tokens", "tokens.toml", "--admin-socket", "admin.sock", "--unix", "chat.sock", cwd=folder
    ) as server:
        done = subprocess.run(
            [*python_command(), "admin", "--unix", "chat.sock", "rooms"], cwd=folder, check=False,
            env=clean_environment(), capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (1, "chatroom: Unauthorized (401)\n")
        assert stat.S_IMODE((folder / "chat.sock").stat().st_mode) == 0o666
        assert server.stop() == 0


def ask(folder: Path, method: str, path: str, **headers: str) -> tuple[int, bytes]:
    """A request at the admin socket."""
    with closing(UnixConnection(str(folder / "admin.sock"), 20)) as connection:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        return response.status, response.read()


def ask_again(kept: UnixConnection) -> None:
    kept.request("GET", "/rooms")
    kept.getresponse()


def test_what_is_served_at_the_admin_socket(server: ServerProcess, folder: Path) -> None:
    assert ask(folder, "GET", "/healthz") == (200, b"ok\n")
    assert ask(folder, "GET", "/metrics")[0] == 200
    assert ask(folder, "GET", "/") == (404, b"Not Found")
    assert ask(folder, "GET", "/handshake")[0] == 404
    assert ask(folder, "GET", "/rooms/general/events") == (404, b"There are no streams at this socket")
    assert ask(folder, "GET", "/rooms/general/moderation?all=1") == (400, b"all must be true or false")
    assert ask(folder, "GET", "/rooms?username=a%20b")[0] == 400
    with pytest.raises(InvalidStatus) as caught:
        Chat("ws://localhost" + target("general", "alice", "alice-token"), path=str(folder / "admin.sock"))
    assert caught.value.response.status_code == 404
    # It is for people on this machine: what proxies say is neither believed nor warned of.
    assert ask(folder, "GET", "/rooms", **{"X-Forwarded-For": "192.0.2.1"})[0] == 200
    assert "untrusted_proxy" not in server.stderr


def test_operators_come_in_where_others_do_not(folder: Path) -> None:
    with ServerProcess(
        *(
            "--tokens",
            "tokens.toml",
            "--admin-socket",
            "admin.sock",
            "--max-connections",
            "1",
            "--hide-rooms",
        ),
        cwd=folder,
    ) as server:
        alice = Chat(server.ws_url + target("general", "alice", "alice-token"))
        assert admin(server, "who", "general", token="alice-token") == (
            75, "", "chatroom: The server is full (503)\n"
        )  # fmt: skip
        assert admin(server, "who", "general") == (0, "alice\n", "")
        assert [room["room"] for room in as_json(server, "rooms")] == ["general"]
        alice.close()


def test_many_deletions_take_their_time(server: ServerProcess) -> None:
    """The pace of messages holds for operators as well, and `admin` waits as long as it is told."""
    alice = Chat(server.ws_url + target("general", "alice", "alice-token"))
    for number in range(20):
        alice.say(f"{number}")
        alice.expect("message")
    ids = [str(number) for number in (*range(1, 21), *range(1, 6))]
    code, out, _ = admin(server, "delete", "general", *ids)
    assert (code, len(out.splitlines())) == (0, 25)
    alice.close()


def test_an_export_of_a_running_server_can_be_imported(server: ServerProcess, folder: Path) -> None:
    for text in ("one", "two", "three"):
        assert admin(server, "say", "general", text)[0] == 0
    assert admin(server, "delete", "general", "2")[0] == 0
    code, out, err = admin(server, "export", "general")
    assert (code, err) == (0, "")
    done = subprocess.run(
        [*python_command(), "import", "--db", "new.db"], cwd=folder, env=clean_environment(), input=out,
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.stderr == (
        "chatroom: imported 2 messages into room general of new.db; left out 1 deleted message\n"
    )
    by_token = admin(server, "export", "general", token="alice-token")
    assert by_token[1].splitlines()[:-1] == out.splitlines()[:-1]


# Where the socket can't be


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--unix", "x", "--admin-socket", "./x"], "--admin-socket is --unix already, where everybody needs "
         "a token: choose another path"),
        (["--admin-socket", "tokens.toml"], "--admin-socket tokens.toml is a file that is no socket: choose "
         "another path"),
        (["--admin-socket", "nowhere/s"], "--admin-socket nowhere/s can't be opened (No such file or "
         "directory): choose another path"),
        (["--admin-socket", "live"], "--admin-socket live is in use by a running server: stop it, or choose "
         "another path"),
        (["--admin-socket", "x" * 108], "--admin-socket: longer than the 107 bytes of a socket's name: use a "
         "shorter path"),
        (["--admin-socket="], "--admin-socket: an empty file name: give the path of a file"),
        (["--host", "none", "--admin-socket", "s"], "--host none needs --unix beside it: else there is "
         "nothing to listen on"),
    ],
)  # fmt: skip
def test_a_path_that_cannot_be(folder: Path, options: list[str], why: str) -> None:
    with socket.socket(socket.AF_UNIX) as live:
        live.bind(str(folder / "live"))
        live.listen()
        with pytest.raises(StartFailed) as caught, ServerProcess(*options, cwd=folder):
            pass
    assert "(exit code 2)" in str(caught.value)
    assert f"stderr: chatroom: {why}\n" in str(caught.value)


def test_a_link_to_the_other_socket_is_refused(folder: Path) -> None:
    (folder / "link").symlink_to("chat.sock")
    with (
        pytest.raises(StartFailed, match="--admin-socket link "),
        ServerProcess("--unix", "chat.sock", "--admin-socket", "link", cwd=folder),
    ):
        pass


def test_a_stop_answers_operators_and_takes_no_more(server: ServerProcess, folder: Path) -> None:
    with closing(UnixConnection(str(folder / "admin.sock"), 20)) as kept:
        kept.request("GET", "/rooms")
        assert kept.getresponse().read()
        assert server.stop() == 0
        with pytest.raises(ConnectionError):
            ask_again(kept)
