"""A reload takes over everything or nothing, waits for no file, and says one thing."""

import logging
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from ssl import SSLContext

import pytest
import trio
import trio.testing

from chatroom import credentials
from chatroom.auth.keyfeed import KeyFeed
from chatroom.auth.tokens import TokenTable, Verifier, Verifiers
from chatroom.auth.webtokens import Key
from chatroom.config.settings import Settings, read_settings
from chatroom.core.errors import StartError
from chatroom.credentials import Reload
from chatroom.net.listeners import load_tls
from tests.support.process import ROOT

PEM = str(ROOT / "tests" / "support" / "localhost.pem")
OLD = '[[token]]\ntoken = "old-secret"\n'
Said = Callable[[], list[tuple[str, str, object]]]
NEW = '[[token]]\ntoken = "new-secret"\n'


class Doors:
    """Nobody is in but one, who came by the old token."""

    def __init__(self) -> None:
        self.tls: SSLContext | None = load_tls(PEM, PEM)
        self.ended = False
        self.reviewed = trio.Event()

    def review(self, verifier: Verifier) -> int:
        identity = TokenTable.parse(OLD, "old").verify("old-secret")
        assert identity is not None
        self.ended = verifier.review(identity) is None
        self.reviewed.set()
        return int(self.ended)


class Desk:
    """A reload of a token file and a certificate, and whose tokens count."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.tokens = folder / "tokens.toml"
        self.certificate = folder / "cert.pem"
        self.tokens.write_text(OLD)
        self.certificate.write_bytes(Path(PEM).read_bytes())
        named = ("--tokens", str(self.tokens), "--tls-cert", str(self.certificate), "--tls-key", PEM)
        settings = read_settings(list(arguments or named), {})
        assert isinstance(settings, Settings)
        self.doors = Doors()
        self.verifiers = Verifiers([TokenTable.parse(OLD, "old")])
        self.fetched: list[Key | StartError] = []
        self.feed = KeyFeed(self._fetch) if settings.jwt_jwks else None
        self.reload = Reload(settings, self.verifiers, self.doors, self.feed)
        self.before = self.doors.tls

    async def _fetch(self) -> tuple[Key, ...]:
        found = self.fetched.pop(0)
        if isinstance(found, StartError):
            raise found
        return (found,)

    @property
    def is_as_it_was(self) -> bool:
        assert (self.doors.tls is self.before) == (self.known == {"old-secret"})
        return self.doors.tls is self.before

    @property
    def known(self) -> set[str]:
        return {each for each in ("old-secret", "new-secret", "dev-token") if self.verifiers.verify(each)}


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Said:
    caplog.set_level(logging.INFO)
    return lambda: [
        (record.levelname, record.getMessage(), record.fields)  # type: ignore[attr-defined]
        for record in caplog.records
        if record.name == "chatroom"
    ]


async def test_what_the_files_say_counts_from_then_on(desk: Desk, said: Said) -> None:
    desk.tokens.write_text(NEW)
    await desk.reload.reload()
    assert desk.known == {"new-secret"}
    assert not desk.is_as_it_was
    assert desk.doors.ended
    assert said() == [("INFO", "reloaded", {"read": "--tls-cert --tls-key --tokens", "closed": 1})]


async def test_more_tokens_for_any_name_are_warned_of(desk: Desk, said: Said) -> None:
    desk.tokens.write_text(OLD + NEW)
    await desk.reload.reload()
    await desk.reload.reload()
    warnings = [(event, fields["count"]) for level, event, fields in said() if level == "WARNING"]
    assert warnings == [("unbound_tokens", 2)], "once, since the second reload brought no more of them"


async def test_files_that_have_not_changed_change_nothing_for_anybody(desk: Desk, said: Said) -> None:
    await desk.reload.reload()
    assert desk.known == {"old-secret"}
    assert not desk.doors.ended
    assert said()[0][2] == {"read": "--tls-cert --tls-key --tokens", "closed": 0}


async def test_where_no_file_is_named_there_is_nothing_to_do(tmp_path: Path, said: Said) -> None:
    desk = Desk(tmp_path, "--db", "none")
    desk.verifiers.replace([TokenTable.development()])
    await desk.reload.reload()
    assert desk.known == {"dev-token"}
    assert not desk.doors.ended
    assert said() == [("INFO", "reloaded", {"read": "", "closed": 0})]


def broken_tokens(desk: Desk) -> str:
    desk.tokens.write_text(NEW + 'username = "a b"\n')
    return "token 1: username may not contain spaces"


def no_tokens(desk: Desk) -> str:
    desk.tokens.unlink()
    return "can't be read (No such file or directory)"


def a_folder(desk: Desk) -> str:
    desk.tokens.unlink()
    desk.tokens.mkdir()
    return "can't be read (Is a directory)"


def broken_certificate(desk: Desk) -> str:
    desk.tokens.write_text(NEW)
    desk.certificate.write_text("-----BEGIN CERTIFICATE-----\n")
    return f"--tls-cert {desk.certificate} and --tls-key {PEM} can't be used"


@pytest.mark.parametrize("damage", [broken_tokens, no_tokens, a_folder, broken_certificate])
async def test_one_broken_file_keeps_all_as_it_was_and_is_told_once(
    damage: Callable[[Desk], str], desk: Desk, said: Said
) -> None:
    reason = damage(desk)
    await desk.reload.reload()
    assert desk.is_as_it_was
    assert not desk.doors.ended
    ((level, event, fields),) = said()
    assert (level, event) == ("ERROR", "reload_failed")
    assert isinstance(fields, dict)
    assert reason in fields["reason"]
    assert "secret" not in fields["reason"]


async def test_keys_at_an_address_are_fetched_anew_and_are_part_of_all_or_nothing(
    tmp_path: Path, said: Said
) -> None:
    old, new = (Key("RS256", kid, 256, lambda *_: True) for kid in ("old", "new"))
    desk = Desk(tmp_path, "--tokens", str(tmp_path / "tokens.toml"), "--jwt-jwks", "https://x.example/keys")
    assert desk.feed is not None
    desk.fetched = [old, StartError("no answer"), new]
    await desk.feed.load()

    desk.tokens.write_text(NEW)
    await desk.reload.reload()  # the address doesn't answer
    assert (desk.known, desk.feed.keys) == ({"old-secret"}, (old,))
    desk.tokens.write_text("nonsense")
    await desk.reload.reload()  # the file is broken
    assert (desk.known, desk.feed.keys) == ({"old-secret"}, (old,))
    desk.tokens.write_text(NEW)
    await desk.reload.reload()
    assert (desk.known, desk.feed.keys) == ({"new-secret"}, (new,))
    assert [(event, fields.get("read")) for _, event, fields in said() if isinstance(fields, dict)] == [
        ("reload_failed", None),
        ("reload_failed", None),
        ("reloaded", "--tokens --jwt-jwks"),
    ]


async def test_a_fault_of_ours_ends_nothing(desk: Desk, said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("old-secret")

    monkeypatch.setattr(credentials, "read_credentials", fail)
    await desk.reload.reload()
    assert desk.is_as_it_was
    ((level, event, fields),) = said()
    assert (level, event) == ("ERROR", "reload_failed")
    assert "ZeroDivisionError" in str(fields)
    assert "old-secret" not in str(fields)


async def test_a_file_that_does_not_answer_is_given_up_and_no_second_one_is_waited_for(
    desk: Desk, said: Said, autojump_clock: trio.testing.MockClock
) -> None:
    """A pipe that nobody writes to, as a stand-in for a disk that hangs. The clock jumps over the wait."""
    desk.tokens.unlink()
    os.mkfifo(desk.tokens)
    threads = threading.active_count()
    for _ in range(3):
        await desk.reload.reload()
    assert desk.is_as_it_was
    assert [(level, event, fields) for level, event, fields in said()] == [
        ("ERROR", "reload_failed", {"reason": "the files could not be read within 10 seconds"})
    ] * 3
    assert threading.active_count() <= threads + 1
    with desk.tokens.open("w") as pipe:  # the disk is back
        pipe.write(NEW)


async def test_each_hangup_is_a_reload(desk: Desk, said: Said) -> None:
    with trio.open_signal_receiver(signal.SIGHUP) as hangups:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(desk.reload.run, hangups)
            for text, known in ((NEW, "new-secret"), (OLD, "old-secret")):
                desk.tokens.write_text(text)
                os.kill(os.getpid(), signal.SIGHUP)
                with trio.fail_after(20):
                    await desk.doors.reviewed.wait()
                assert desk.known == {known}
                desk.doors.reviewed = trio.Event()
            nursery.cancel_scope.cancel()
    assert [event for _, event, _ in said()] == ["reloaded", "reloaded"]
