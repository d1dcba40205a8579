"""Keys from an address are kept fresh, at a pace that no stranger sets."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from chatroom.auth.keyfeed import PAUSE_SECONDS, REFRESH_SECONDS, RETRY_SECONDS, KeyFeed
from chatroom.auth.webtokens import Expected, Key, WebTokens
from chatroom.core.errors import StartError
from tests.support.signing import NOW, SECRET, token

pytestmark = pytest.mark.usefixtures("autojump_clock")


def key(kid: str, algorithm: str = "RS256") -> Key:
    return Key(algorithm, kid, 32, lambda *_: True)


class Issuer:
    """An address that answers with `keys`, or fails; when it was asked."""

    def __init__(self, *kids: str) -> None:
        self.keys = tuple(key(kid) for kid in kids)
        self.fault: str | None = None
        self.seconds = 0.0
        self.asked: list[float] = []

    async def fetch(self) -> tuple[Key, ...]:
        self.asked.append(trio.current_time())
        await trio.sleep(self.seconds)
        if self.fault is not None:
            raise StartError(self.fault)
        return self.keys

    def times(self) -> list[float]:
        """When it was asked after the start."""
        return [when - self.asked[0] for when in self.asked[1:]]


@asynccontextmanager
async def running(issuer: Issuer) -> AsyncIterator[KeyFeed]:
    feed = KeyFeed(issuer.fetch)
    await feed.load()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(feed.run)
        yield feed
        nursery.cancel_scope.cancel()


async def test_keys_are_fetched_at_the_start_and_from_time_to_time() -> None:
    issuer = Issuer("a")
    async with running(issuer) as feed:
        assert feed.keys == issuer.keys
        issuer.keys = (key("b"),)
        await trio.sleep(REFRESH_SECONDS - 1)
        assert [each.kid for each in feed.keys] == ["a"]
        await trio.sleep(2)
        assert [each.kid for each in feed.keys] == ["b"]
        await trio.sleep(REFRESH_SECONDS)
    assert issuer.times() == [REFRESH_SECONDS, 2 * REFRESH_SECONDS]


async def test_what_was_asked_for_last_counts_however_slow_the_answer_before_it() -> None:
    answers = iter([(5.0, "withdrawn"), (1.0, "new")])

    async def fetch() -> tuple[Key, ...]:
        seconds, kid = next(answers)
        await trio.sleep(seconds)
        return (key(kid),)

    feed = KeyFeed(fetch)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(feed.load)
        await wait_all_tasks_blocked()
        nursery.start_soon(feed.load)
    assert [each.kid for each in feed.keys] == ["new"]


async def test_a_missed_key_is_asked_for_soon_but_not_too_often() -> None:
    issuer = Issuer("a")
    async with running(issuer) as feed:
        feed.missed()
        feed.missed()
        await trio.sleep(PAUSE_SECONDS - 1)
        assert issuer.times() == []
        await trio.sleep(2)
        assert issuer.times() == [PAUSE_SECONDS]
        await trio.sleep(100)
        assert issuer.times() == [PAUSE_SECONDS]
        feed.missed()
        await trio.sleep(1)
        assert issuer.times() == [PAUSE_SECONDS, PAUSE_SECONDS + 101]
        for _ in range(600):
            feed.missed()
            await trio.sleep(0.5)
    assert len(issuer.times()) == 2 + 300 / PAUSE_SECONDS


async def test_a_failure_leaves_the_keys_and_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    issuer = Issuer("a")
    with caplog.at_level(logging.INFO, "chatroom"):
        async with running(issuer) as feed:
            issuer.fault = "no answer"
            assert feed.age == 0
            await trio.sleep(REFRESH_SECONDS + 5 * RETRY_SECONDS + 1)
            assert [each.kid for each in feed.keys] == ["a"]
            assert feed.age == REFRESH_SECONDS + 5 * RETRY_SECONDS + 1
            issuer.fault = None
            await trio.sleep(REFRESH_SECONDS)
    retries = [REFRESH_SECONDS + number * RETRY_SECONDS for number in range(7)]
    assert issuer.times() == retries
    said = [(record.getMessage(), record.__dict__["fields"]) for record in caplog.records]
    assert said == [
        ("keys", {"algorithms": "RS256", "count": 1}),
        ("keys_not_refreshed", {"reason": "no answer"}),
        ("keys", {"algorithms": "RS256", "count": 1}),
    ]


async def test_an_error_of_our_own_in_a_fetch_ends_nothing_and_quotes_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    answers = iter([(key("a"),), None, (key("b"),)])

    async def fetch() -> tuple[Key, ...]:
        answer = next(answers)
        if answer is None:
            raise KeyError("what the issuer has sent")
        return answer

    feed = KeyFeed(fetch)
    await feed.load()
    async with trio.open_nursery() as nursery:
        with caplog.at_level(logging.WARNING, "chatroom"):
            nursery.start_soon(feed.run)
            await trio.sleep(REFRESH_SECONDS + 1)
            assert [each.kid for each in feed.keys] == ["a"]
            await trio.sleep(RETRY_SECONDS)
            assert [each.kid for each in feed.keys] == ["b"]
        nursery.cancel_scope.cancel()
    (record,) = caplog.records
    assert record.__dict__["fields"]["reason"].startswith("an error of the server's own: KeyError at ")
    assert "issuer" not in record.__dict__["fields"]["reason"]


async def test_changed_keys_are_told_and_the_same_ones_are_not(caplog: pytest.LogCaptureFixture) -> None:
    issuer = Issuer("a")
    with caplog.at_level(logging.INFO, "chatroom"):
        async with running(issuer):
            await trio.sleep(3 * REFRESH_SECONDS + 1)
            issuer.keys = (key("a"), key("b", "ES256"))
            await trio.sleep(REFRESH_SECONDS)
            issuer.keys = (key("a"), replace(key("b"), fingerprint="of another key"))
            await trio.sleep(REFRESH_SECONDS)
    fields = [record.__dict__["fields"] for record in caplog.records]
    assert [(each["count"], each["algorithms"]) for each in fields] == [
        (1, "RS256"),
        (2, "ES256 RS256"),
        (2, "RS256"),
    ]


async def test_a_token_of_a_new_key_is_good_as_soon_as_the_key_is_there() -> None:
    issuer = Issuer("a")
    async with running(issuer) as feed:
        verifier = WebTokens(feed, Expected(), lambda: NOW)
        shown = token(None, SECRET, {"alg": "RS256", "kid": "b"})
        issuer.keys = (key("a"), key("b"))
        assert verifier.verify(shown) is None
        await trio.sleep(PAUSE_SECONDS + 1)
        assert verifier.verify(shown) is not None
        issuer.keys = (key("b"),)
        await trio.sleep(REFRESH_SECONDS)
        assert verifier.verify(token(None, SECRET, {"alg": "RS256", "kid": "a"})) is None
    assert issuer.times() == [PAUSE_SECONDS, PAUSE_SECONDS + REFRESH_SECONDS]


async def test_a_failure_at_the_start_is_a_start_error() -> None:
    issuer = Issuer()
    issuer.fault = "no answer"
    with pytest.raises(StartError, match="no answer"):
        await KeyFeed(issuer.fetch).load()


async def test_a_key_missed_while_keys_are_fetched_is_asked_for_again() -> None:
    issuer = Issuer("a")
    async with running(issuer) as feed:
        issuer.seconds = 5
        feed.missed()
        await trio.sleep(PAUSE_SECONDS + 1)
        feed.missed()
        await trio.sleep(PAUSE_SECONDS + 1)
    assert issuer.times() == [PAUSE_SECONDS, 2 * PAUSE_SECONDS]
