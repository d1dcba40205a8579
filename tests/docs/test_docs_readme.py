"""What the README and the first steps show is what happens: the transcript is played with the real wscat."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from benchmarks.__main__ import PROGRAMS
from chatroom.auth.tokens import DEVELOPMENT_TOKENS, TokenTable
from chatroom.config.options import OPTIONS
from chatroom.config.settings import Settings, read_settings
from chatroom.core.limits import Limits
from chatroom.http.api import ROOMS_PATH
from chatroom.http.handshake import PATHS
from chatroom.say import SAY_OPTIONS
from tests.support.client import Chat, target
from tests.support.pages import ROOT, blocks, rows, words
from tests.support.process import ServerProcess, clean_environment
from tests.support.wscat import Wscat

README = (ROOT / "README.md").read_text("utf-8")
FIRST_STEPS = (ROOT / "docs" / "first-steps.md").read_text("utf-8")
PATIENCE = 20.0


@pytest.fixture(scope="module")
def server(pyz: Path) -> Iterator[ServerProcess]:
    with ServerProcess() as running:
        yield running


def transcripts() -> list[tuple[list[str], list[str]]]:
    """What is typed at each terminal, and the lines that are seen there."""
    found = []
    for block in blocks(README, "console"):
        command, *lines = block.splitlines()
        assert command.startswith("$ wscat -c "), command
        found.append((shlex.split(command.removeprefix("$ ")), lines))
    return found


def steady(lines: Sequence[str]) -> list[str]:
    """The lines without what differs from run to run: times and epochs."""
    return [re.sub(r'"ts":\d+', '"ts":T', re.sub(r'"epoch":"[\w-]+"', '"epoch":"E"', line)) for line in lines]


class Terminal:
    """A person who types what stands in the transcript when all before it has been shown."""

    def __init__(self, wscat: Wscat, script: list[str]) -> None:
        self.wscat = wscat
        self.script = script
        self.connects = script[0].startswith("Connected")
        self._typed = 0

    def go_on(self) -> bool:
        """Type what is due; true when all has been shown, and the person has left."""
        shown = len(self.wscat.lines)
        if shown < len(self.script) and shown >= self._typed and self.script[shown].startswith("> "):
            self.wscat.enter(self.script[shown].removeprefix("> "))
            self._typed = shown + 1
        if steady(self.wscat.lines) != steady(self.script):
            return False
        if self.connects:
            self.wscat.interrupt()
        else:  # it ends by itself
            assert self.wscat.process.wait(PATIENCE) != 0
        return True


def play(server: ServerProcess, scripts: list[tuple[list[str], list[str]]]) -> list[list[str]]:
    """Play all terminals at once; each leaves when its script is through. What was shown on each."""
    with ExitStack() as stack:
        terminals = []
        for command, script in scripts:
            url = command[2].replace("ws://localhost:3000", server.ws_url)
            terminal = Terminal(stack.enter_context(Wscat(url)), script)
            terminals.append(terminal)
            if terminal.connects:
                terminal.wscat.wait_for('"welcome"')
        left = list(terminals)
        deadline = time.monotonic() + PATIENCE
        while left and time.monotonic() < deadline:
            left = [terminal for terminal in left if not terminal.go_on()]
            time.sleep(0.01)
        return [terminal.wscat.lines for terminal in terminals]


def test_two_people_see_what_the_readme_shows(server: ServerProcess) -> None:
    alice, bob, _ = transcripts()
    shown = play(server, [alice, bob])
    assert steady(shown[0]) == steady(alice[1])
    assert steady(shown[1]) == steady(bob[1])


def test_a_stranger_sees_what_the_readme_shows(server: ServerProcess) -> None:
    *_, stranger = transcripts()
    assert play(server, [stranger]) == [stranger[1]]


def test_the_transcript_agrees_with_itself() -> None:
    """Both terminals show the same room: the same frames, at the same times, in the same epoch."""
    (_, alice), (_, bob), _ = transcripts()
    messages = [[line for line in lines if line.startswith('< {"event":"message"')] for lines in (alice, bob)]
    assert messages[0] == messages[1]
    assert len(set(re.findall(r'"epoch":"([^"]+)"', "\n".join([*alice, *bob])))) == 1


def commands() -> list[str]:
    return [
        line for page in (README, FIRST_STEPS) for block in blocks(page, "sh") for line in block.splitlines()
    ]


def test_the_commands_run_files_that_are_here() -> None:
    assert commands()[1] == "./build.sh && ./chat.pyz --port 3000"
    for name in set(re.findall(r"\./([\w-]+\.sh)", README)):
        assert (ROOT / name).stat().st_mode & 0o111, name


def test_what_is_pasted_first_runs(pyz: Path, tmp_path: Path) -> None:
    """Both lines at once; cloned and built is what is here already, since that takes a minute."""
    (first, *_) = blocks(README, "sh")
    clone = tmp_path / "chatroom"
    clone.mkdir()
    shutil.copy(pyz, clone / "chat.pyz")
    (clone / "build.sh").write_text("#!/bin/sh\n")
    (clone / "build.sh").chmod(0o755)
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    (bin_folder / "git").write_text(f'#!/bin/sh\n[ "$1" = clone ] && [ "$2" = {URL} ]\n')
    (bin_folder / "git").chmod(0o755)
    (bin_folder / "python3").symlink_to(sys.executable)
    env = clean_environment() | {"PATH": f"{bin_folder}:{os.environ['PATH']}"}
    pasted = first.replace("./chat.pyz --port 3000", "exec ./chat.pyz --port 0")
    with ServerProcess(command=["sh", "-c", pasted, "sh"], cwd=tmp_path, env=env) as server:
        bob = Chat(server.ws_url + target("general", "anybody", "token-alice"))
        bob.close()
        assert (clone / "chat.db").exists()
        server.signal(2)


URL = "https://example.org/chatroom.git"


def test_the_first_screen_has_the_picture_and_what_to_do() -> None:
    order = [
        "![",
        "git clone",
        "./chat.pyz --port 3000",
        "any name and the token `token-alice`",
        "./test.sh",
        "chat.db",
    ]
    places = [README.index(what) for what in order]
    assert places == sorted(places)
    assert "`token-alice`" in README
    assert "token-alice" in DEVELOPMENT_TOKENS
    table = [words(command) for command, _, _ in rows(README, "chatroom")]
    assert table == [["./build.sh"], ["./chat.pyz --port 3000"], ["./test.sh"]]


def test_the_token_file_is_shown_before_it_is_used(tmp_path: Path) -> None:
    (block,) = [block for block in blocks(FIRST_STEPS, "sh") if "tokens.toml" in block]
    making, _, using = block.partition("scp ")
    assert "--tokens tokens.toml" in using
    subprocess.run(["sh", "-e", "-c", making], cwd=tmp_path, check=True, timeout=20)
    made = tmp_path / "tokens.toml"
    assert made.stat().st_mode & 0o777 == 0o600
    (token,) = re.findall(r'token = "(\w{48})"', made.read_text())
    identity = TokenTable.parse(made.read_text(), "tokens.toml").verify(token)
    assert identity is not None
    assert identity.username == "alice"


def test_the_arguments_shown_are_accepted() -> None:
    shown = [found[1] for line in commands() if (found := re.search(r"\./chat\.pyz (--.+)$", line))]
    assert len(shown) == 4
    for arguments in shown:
        assert isinstance(read_settings(arguments.split(), {}), Settings)


def test_what_is_said_from_a_script_is_stored(server: ServerProcess, pyz: Path, tmp_path: Path) -> None:
    (block,) = [block for block in blocks(README, "sh") if "./chat.pyz say" in block]
    script = "\n".join(line for line in block.splitlines() if not line.startswith("curl"))
    script = script.replace("./chat.pyz", f'"{sys.executable}" "{pyz}"').replace(
        "ws://localhost:3000", server.ws_url
    )
    done = subprocess.run(
        ["sh", "-e", "-c", script], env=clean_environment({"XDG_STATE_HOME": str(tmp_path)}), check=False,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"stored as \d+ in general\n", done.stdout)


def test_every_option_named_exists() -> None:
    ours = re.sub(r"^valkey-server .*$", "", README + FIRST_STEPS, flags=re.MULTILINE)
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", ours))
    assert named
    assert named <= {option.flag for option in (*OPTIONS, *SAY_OPTIONS)}


def test_the_limits_are_those_of_the_code() -> None:
    now, settings = Limits(), read_settings([], {})
    assert isinstance(settings, Settings)
    assert [(default, words(option)) for _, default, option in rows(FIRST_STEPS, "Limits")] == [
        (f"{now.connections:,}", ["--max-connections"]),
        (f"{now.per_user}", ["--max-per-user"]),
        (f"{now.per_address}", ["--max-per-ip"]),
        (f"{now.message_rate:g} a second, {now.message_burst} at once", ["--rate", "--burst"]),
        (f"{now.text_chars:,} characters", ["--max-text"]),
        (f"{now.frame_bytes // 1024} KiB", ["--max-frame"]),
        (f"{settings.history}", ["--history"]),
    ]


def test_the_addresses_and_programs_named_exist() -> None:
    paths = set(re.findall(r"http://localhost:3000(/\w*)", README + FIRST_STEPS))
    assert paths
    assert paths <= PATHS | {ROOMS_PATH}
    assert "python -m benchmarks`" in README
    assert {"talk", "idle", "start"} <= set(PROGRAMS)


def test_it_is_two_screens_long() -> None:
    assert len(README.splitlines()) <= 120
    assert README.index("```sh") < 500
