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


class Target:
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


class Harness:
    """A reload of a token file and a certificate, and whose tokens count."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.tokens = folder / "tokens.toml"
        self.certificate = folder / "cert.pem"
        self.tokens.write_text(OLD)
        self.certificate.write_bytes(Path(PEM).read_bytes())
        named = ("--tokens", str(self.tokens), "--tls-cert", str(self.certificate), "--tls-key", PEM)
        settings = read_settings(list(arguments or named), {})
        assert isinstance(settings, Settings)
        self.target = Target()
        self.verifiers = Verifiers([TokenTable.parse(OLD, "old")])
        self.fetched: list[Key | StartError] = []
        self.feed = KeyFeed(self._fetch) if settings.jwt_jwks else None
        self.reload = Reload(settings, self.verifiers, self.target, self.feed)
        self.before = self.target.tls

    async def _fetch(self) -> tuple[Key, ...]:
        found = self.fetched.pop(0)
        if isinstance(found, StartError):
            raise found
        return (found,)

    @property
    def is_as_it_was(self) -> bool:
        assert (self.target.tls is self.before) == (self.known == {"old-secret"})
        return self.target.tls is self.before

    @property
    def known(self) -> set[str]:
        return {each for each in ("old-secret", "new-secret", "dev-token") if self.verifiers.verify(each)}


@pytest.fixture
def harness(tmp_path: Path) -> Harness:
    return Harness(tmp_path)


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Said:
    caplog.set_level(logging.INFO)
    return lambda: [
        (record.levelname, record.getMessage(), record.fields)  # type: ignore[attr-defined]
        for record in caplog.records
        if record.name == "chatroom"
    ]


async def test_what_the_files_say_counts_from_then_on(harness: Harness, said: Said) -> None:
    harness.tokens.write_text(NEW)
    await harness.reload.reload()
    assert harness.known == {"new-secret"}
    assert not harness.is_as_it_was
    assert harness.target.ended
    assert said() == [("INFO", "reloaded", {"read": "--tls-cert --tls-key --tokens", "closed": 1})]


async def test_a_first_moderator_beside_tokens_for_any_name_is_warned_of(
    harness: Harness, said: Said
) -> None:
    harness.tokens.write_text(OLD + NEW + 'username = "carol"\nrooms = { "*" = "rwm" }\n')
    await harness.reload.reload()
    assert [event for level, event, _ in said() if level == "WARNING"] == ["unbound_tokens"]


async def test_more_tokens_for_any_name_are_warned_of(harness: Harness, said: Said) -> None:
    harness.tokens.write_text(OLD + NEW)
    await harness.reload.reload()
    await harness.reload.reload()
    warnings = [(event, fields["count"]) for level, event, fields in said() if level == "WARNING"]
    assert warnings == [("unbound_tokens", 2)], "once, since the second reload brought no more of them"


async def test_files_that_have_not_changed_change_nothing_for_anybody(harness: Harness, said: Said) -> None:
    await harness.reload.reload()
    assert harness.known == {"old-secret"}
    assert not harness.target.ended
    assert said()[0][2] == {"read": "--tls-cert --tls-key --tokens", "closed": 0}


async def test_where_no_file_is_named_there_is_nothing_to_do(tmp_path: Path, said: Said) -> None:
    harness = Harness(tmp_path, "--db", "none")
    harness.verifiers.replace([TokenTable.development()])
    await harness.reload.reload()
    assert harness.known == {"dev-token"}
    assert not harness.target.ended
    assert said() == [("INFO", "reloaded", {"read": "", "closed": 0})]


def broken_tokens(harness: Harness) -> str:
    harness.tokens.write_text(NEW + 'username = "a b"\n')
    return "token 1: username may not contain spaces"


def no_tokens(harness: Harness) -> str:
    harness.tokens.unlink()
    return "can't be read (No such file or directory)"


def a_folder(harness: Harness) -> str:
    harness.tokens.unlink()
    harness.tokens.mkdir()
    return "can't be read (Is a directory)"


def broken_certificate(harness: Harness) -> str:
    harness.tokens.write_text(NEW)
    harness.certificate.write_text("-----BEGIN CERTIFICATE-----\n")
    return f"--tls-cert {harness.certificate} and --tls-key {PEM} can't be used"


@pytest.mark.parametrize("damage", [broken_tokens, no_tokens, a_folder, broken_certificate])
async def test_one_broken_file_keeps_all_as_it_was_and_is_told_once(
    damage: Callable[[Harness], str], harness: Harness, said: Said
) -> None:
    reason = damage(harness)
    await harness.reload.reload()
    assert harness.is_as_it_was
    assert not harness.target.ended
    ((level, event, fields),) = said()
    assert (level, event) == ("ERROR", "reload_failed")
    assert isinstance(fields, dict)
    assert reason in fields["reason"]
    assert "secret" not in fields["reason"]


async def test_keys_at_an_address_are_fetched_anew_and_are_part_of_all_or_nothing(
    tmp_path: Path, said: Said
) -> None:
    old, new = (Key("RS256", kid, 256, lambda *_: True) for kid in ("old", "new"))
    harness = Harness(
        tmp_path, "--tokens", str(tmp_path / "tokens.toml"), "--jwt-jwks", "https://x.example/keys"
    )
    assert harness.feed is not None
    harness.fetched = [old, StartError("no answer"), new]
    await harness.feed.load()

    harness.tokens.write_text(NEW)
    await harness.reload.reload()  # the address doesn't answer
    assert (harness.known, harness.feed.keys) == ({"old-secret"}, (old,))
    harness.tokens.write_text("nonsense")
    await harness.reload.reload()  # the file is broken
    assert (harness.known, harness.feed.keys) == ({"old-secret"}, (old,))
    harness.tokens.write_text(NEW)
    await harness.reload.reload()
    assert (harness.known, harness.feed.keys) == ({"new-secret"}, (new,))
    assert [(event, fields.get("read")) for _, event, fields in said() if isinstance(fields, dict)] == [
        ("reload_failed", None),
        ("reload_failed", None),
        ("reloaded", "--tokens --jwt-jwks"),
    ]


async def test_a_fault_of_ours_ends_nothing(
    harness: Harness, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("old-secret")

    monkeypatch.setattr(credentials, "read_credentials", fail)
    await harness.reload.reload()
    assert harness.is_as_it_was
    ((level, event, fields),) = said()
    assert (level, event) == ("ERROR", "reload_failed")
    assert "ZeroDivisionError" in str(fields)
    assert "old-secret" not in str(fields)


async def test_a_file_that_does_not_answer_is_given_up_and_no_second_one_is_waited_for(
    harness: Harness, said: Said, autojump_clock: trio.testing.MockClock
) -> None:
    """A pipe that nobody writes to, as a stand-in for a disk that hangs. The clock jumps over the wait."""
    harness.tokens.unlink()
    os.mkfifo(harness.tokens)
    threads = threading.active_count()
    for _ in range(3):
        await harness.reload.reload()
    assert harness.is_as_it_was
    assert [(level, event, fields) for level, event, fields in said()] == [
        ("ERROR", "reload_failed", {"reason": "the files could not be read within 10 seconds"})
    ] * 3
    assert threading.active_count() <= threads + 1
    with harness.tokens.open("w") as pipe:  # the disk is back
        pipe.write(NEW)


async def test_each_hangup_is_a_reload(harness: Harness, said: Said) -> None:
    with trio.open_signal_receiver(signal.SIGHUP) as hangups:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(harness.reload.run, hangups)
            for text, known in ((NEW, "new-secret"), (OLD, "old-secret")):
                harness.tokens.write_text(text)
                os.kill(os.getpid(), signal.SIGHUP)
                with trio.fail_after(20):
                    await harness.target.reviewed.wait()
                assert harness.known == {known}
                harness.target.reviewed = trio.Event()
            nursery.cancel_scope.cancel()
    assert [event for _, event, _ in said()] == ["reloaded", "reloaded"]
