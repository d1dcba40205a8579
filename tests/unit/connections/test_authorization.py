"""A right ends when it ends: what is told before, how it is renewed, and what a review makes of it."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from chatroom.auth.rights import Rights
from chatroom.auth.tokens import Identity, Verifiers
from chatroom.auth.webtokens import LEEWAY
from chatroom.connections.acceptor import EXPIRY_CHECK_SECONDS
from chatroom.core.http import Peer
from chatroom.core.statistics import Drop
from chatroom.engines.memory import MemoryEngine
from tests.support.client_frames import CLOSE, masked
from tests.support.engines import Answered, later
from tests.support.line import FIRST_KEY, LIMITS, MIDNIGHT, Caller, House, command, open_house, say
from tests.support.memory_transport import MemoryTransport

pytestmark = pytest.mark.usefixtures("autojump_clock")

FREE = Rights.everything()
QUIET = replace(LIMITS, ping_interval=1e6)
EXPIRED = (4001, "the token has expired")
NOT_HERE = (4503, "no longer allowed in this room")


def at(seconds: float) -> int:
    """An `exp` of so many seconds after the start."""
    return MIDNIGHT + int(seconds)


def token(
    expires: int | None = None, *, key: str = "second", username: str | None = "alice", rights: Rights = FREE
) -> Identity:
    return Identity(username, rights, "jwt", key, expires)


def knows(**identities: Identity) -> Callable[[Peer, str, str], Identity | None]:
    def renew(_peer: Peer, username: str, shown: str) -> Identity | None:
        found = identities.get(shown)
        return found if found and found.username in (None, username) else None

    return renew


async def call(house: House, username: str = "alice", **options: Any) -> Caller:
    """Somebody connects who is never pinged: the test's clients don't answer."""
    return await house.call(username, limits=QUIET, **options)


class Watch:
    """When each frame came, to the second."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self.start = trio.current_time()
        self.seen: list[tuple[int, str, object]] = []
        self._known = 0

    async def until(self, seconds: float) -> None:
        """Look on until so many seconds after the start."""
        for _ in range(round((self.start + seconds - trio.current_time()) * 10)):
            self.look()
            await trio.sleep(0.1)
        self.look()

    def look(self) -> None:
        now = round(trio.current_time() - self.start)
        if self.caller.closed_with and ("close" not in [name for _, name, _ in self.seen]):
            self.seen.append((now, "close", self.caller.closed_with))
        events = self.caller.events[self._known :]
        self._known += len(events)
        for each in events:
            if each["event"] in ("expiring", "ack", "welcome"):
                data = {} if each["event"] == "welcome" else each["data"]
                self.seen.append((now, each["event"], data))


async def watched(house: House, seconds: float, **options: Any) -> list[tuple[int, str, object]]:
    """What somebody hears of the end of their right who comes at once, in so many seconds."""
    watch = Watch(await call(house, **options))
    await watch.until(seconds)
    return watch.seen


# The end


async def test_a_right_ends_half_a_minute_after_its_tokens_exp_and_that_is_told_a_minute_before() -> None:
    async with open_house() as house:
        seen = await watched(house, 200, expires=at(100))
    assert LEEWAY == 30
    assert seen == [(0, "welcome", {}), (70, "expiring", {"in": 60}), (130, "close", EXPIRED)]


@pytest.mark.parametrize(("expires", "left"), [(29, 59), (10, 40), (0, 30), (-29, 1), (30, 60)])
async def test_what_has_less_than_a_minute_left_is_told_so_behind_the_welcome(
    expires: int, left: int
) -> None:
    async with open_house() as house:
        seen = await watched(house, 100, expires=at(expires))
    assert seen == [(0, "welcome", {}), (0, "expiring", {"in": left}), (left, "close", EXPIRED)]


@pytest.mark.parametrize(("late", "told"), [(0.02, 60), (0.49, 60), (0.51, 59)])
async def test_what_is_told_is_the_nearest_number_of_seconds(late: float, told: int) -> None:
    async with open_house() as house:
        alice = await call(house, expires=at(100))
        alice.authorization.on_timer(at(130) - 60 + late)
        await trio.testing.wait_all_tasks_blocked()
        assert alice.named("expiring") == [{"event": "expiring", "data": {"in": told}}]


async def test_a_token_without_an_end_has_none() -> None:
    async with open_house() as house:
        assert await watched(house, 1000) == [(0, "welcome", {})]
        assert len(house.expiry) == 0


async def test_a_right_that_is_over_when_its_client_comes_in_lets_it_see_nothing() -> None:
    async with open_house() as house:
        alice = await call(house, expires=at(-31))
        await trio.sleep(5)
        assert alice.ending is not None
        assert alice.ending.drop == Drop.TOKEN_EXPIRED
        assert b"welcome" not in alice.transport.taken


async def test_the_end_counts_as_such_and_others_see_the_user_leave() -> None:
    async with open_house() as house:
        alice, bob = await call(house, expires=at(0)), await call(house, "bob")
        await trio.sleep(29)
        await alice.send(say("until the end"))
        assert alice.texts == ["until the end"]
        await trio.sleep(1.5)
        await alice.send(say("too late"), masked(CLOSE, b"\x0f\xa1"))
        await trio.sleep(5)
        assert alice.ending is not None
        assert alice.ending.drop == Drop.TOKEN_EXPIRED
        assert [each["event"] for each in bob.events] == ["welcome", "message", "left"]
        assert len(house.expiry) == 0


class StuckEngine(MemoryEngine):
    """Opens its rooms in their time."""

    def open(self, room: str, opened: Answered) -> None:
        later(partial(trio.sleep, 40), partial(super().open, room, opened))


@pytest.mark.parametrize(
    ("expires", "expected"),
    [
        (60, [(40, "welcome", {}), (40, "expiring", {"in": 50}), (90, "close", EXPIRED)]),
        (0, [(30, "close", EXPIRED)]),
    ],
)
async def test_nothing_is_told_before_the_welcome_however_long_that_takes(
    expires: int, expected: list[object]
) -> None:
    async with open_house(engine=StuckEngine(lambda: "e")) as house:
        assert await watched(house, 100, expires=at(expires)) == expected


@pytest.mark.parametrize(("jump", "closed"), [(3600, 20 + EXPIRY_CHECK_SECONDS), (-10, 50)])
async def test_a_clock_that_is_set_is_believed_at_once(jump: float, closed: float) -> None:
    async with open_house() as house:
        watch = Watch(await call(house, expires=at(10)))
        await watch.until(20)
        house.jump = jump
        await watch.until(100)
        assert [(name, what) for _, name, what in watch.seen] == [
            ("welcome", {}),
            ("expiring", {"in": 40}),
            ("close", EXPIRED),
        ]
        assert watch.seen[-1][0] == pytest.approx(closed, abs=EXPIRY_CHECK_SECONDS)


async def test_a_reader_that_takes_nothing_for_a_while_is_told_all_the_same() -> None:
    async with open_house() as house:
        transport = MemoryTransport()
        alice, bob = await call(house, expires=at(35), transport=transport), await call(house, "bob")
        transport.room = 0
        await bob.send(*[say("x" * 1000) for _ in range(200)])
        await trio.sleep(8)
        transport.give_room(1 << 40)
        await trio.testing.wait_all_tasks_blocked()
        assert alice.named("expiring") == [{"event": "expiring", "data": {"in": 60}}]


# A fresh token


async def test_a_fresh_token_moves_the_end_and_is_told_of_in_its_turn() -> None:
    async with open_house() as house:
        watch = Watch(await call(house, expires=at(60), renew=knows(fresh=token(at(200)))))
        await watch.until(50)
        await watch.caller.send(command("auth", "a", token="fresh"))
        await watch.until(300)
        assert watch.seen == [
            (0, "welcome", {}),
            (30, "expiring", {"in": 60}),
            (50, "ack", {"exp": at(200)}),
            (170, "expiring", {"in": 60}),
            (230, "close", EXPIRED),
        ]


async def test_a_fresh_token_may_bring_the_end_nearer() -> None:
    async with open_house() as house:
        watch = Watch(await call(house, expires=at(10_000), renew=knows(short=token(at(20)))))
        await watch.until(10)
        await watch.caller.send(command("auth", "a", token="short"))
        await watch.until(100)
        assert watch.seen == [
            (0, "welcome", {}),
            (10, "ack", {"exp": at(20)}),
            (10, "expiring", {"in": 40}),
            (50, "close", EXPIRED),
        ]


async def test_a_token_without_an_end_may_follow_and_be_followed_by_one_with() -> None:
    async with open_house() as house:
        renew = knows(static=token(None, key="k"), jwt=token(at(300)))
        watch = Watch(await call(house, expires=at(10), renew=renew))
        await watch.until(20)
        await watch.caller.send(command("auth", "a", token="static"))
        await watch.until(200)
        assert len(house.expiry) == 0
        await watch.caller.send(command("auth", token="jwt"))
        await watch.until(400)
        assert watch.seen[2:] == [
            (20, "ack", {}),
            (200, "ack", {"exp": at(300)}),
            (270, "expiring", {"in": 60}),
            (330, "close", EXPIRED),
        ]


async def test_the_same_token_again_is_no_news() -> None:
    async with open_house() as house:
        renew = knows(same=token(at(20), key=FIRST_KEY))
        watch = Watch(await call(house, expires=at(20), renew=renew))
        for moment in (10, 20):
            await watch.until(moment)
            await watch.caller.send(command("auth", "a", token="same"))
        await watch.until(100)
        assert [name for _, name, _ in watch.seen] == ["welcome", "expiring", "ack", "ack", "close"]
        assert watch.seen[-1][0] == 50


async def test_a_wrong_token_does_not_move_the_end() -> None:
    async with open_house() as house:
        renew = knows(other=token(at(1000), username="bob"))
        alice = await call(house, expires=at(10), renew=renew)
        await alice.send(command("auth", "1", token="other"), command("auth", "2", token="wrong"))
        assert [(each["code"], each["cid"]) for each in alice.named("error")] == [
            ("forbidden", "1"),
            ("forbidden", "2"),
        ]
        await trio.sleep(41)
        assert alice.closed_with == EXPIRED


@pytest.mark.parametrize(("shown_at", "saved"), [(29.9, True), (30.1, False)])
async def test_a_token_that_is_shown_in_the_last_moment_counts_and_one_that_comes_later_does_not(
    shown_at: float, saved: bool
) -> None:
    async with open_house() as house:
        alice = await call(house, expires=at(0), renew=knows(fresh=token(at(200))))
        await trio.sleep(shown_at)
        await alice.send(command("auth", "a", token="fresh"))
        await trio.sleep(10)
        assert bool(alice.named("ack")) == saved
        assert alice.closed_with == (None if saved else EXPIRED)


async def test_many_tokens_in_a_row_are_all_answered() -> None:
    """Also where each is as good as over, so that each answer is followed by an `expiring`."""
    async with open_house() as house:
        tokens = {f"t{number}": token(at(number), key=f"k{number}") for number in range(30)}
        alice = await call(house, transport=MemoryTransport(tls=True), renew=knows(**tokens))
        await alice.send(*[command("auth", name, token=name) for name in tokens])
        await trio.sleep(1)
        assert [each["cid"] for each in alice.named("ack")] == list(tokens)
        assert [each["data"]["in"] for each in alice.named("expiring")] == [30 + n for n in range(30)]
        assert alice.ending is None
        assert len(house.expiry) == 1


# Rights that change


async def test_rights_are_those_of_the_last_token_at_once() -> None:
    narrow = token(rights=Rights.parse({"r": "r", "s": "rw"}))
    async with open_house() as house:
        alice = await call(house, renew=knows(narrow=narrow, wide=token(key="third")))
        await alice.send(
            say("one", "1"),
            command("auth", "2", token="narrow"),
            say("two", "3"),
            command("typing", "4", active=True),
            command("history", "5"),
            command("switch_room", "6", room="t"),
            command("members", "7"),
            command("auth", "8", token="wide"),
            say("three", "9"),
            command("switch_room", "10", room="t"),
        )
        await trio.sleep(0.1)
        answers = {each["cid"]: each.get("code", each["event"]) for each in alice.events if "cid" in each}
        assert answers == {
            "1": "message",
            "2": "ack",
            "3": "forbidden",
            "4": "forbidden",
            "5": "history",
            "6": "forbidden",
            "7": "members",
            "8": "ack",
            "9": "message",
            "10": "switched",
        }
        assert alice.named("members")[0]["room"] == "r"


async def test_who_may_no_longer_read_its_room_is_told_nothing_more() -> None:
    narrow = token(rights=Rights.parse({"r": "w"}))
    async with open_house() as house:
        alice, bob = await call(house, renew=knows(narrow=narrow)), await call(house, "bob")
        await alice.send(command("auth", "a", token="narrow"), say("x"))
        await bob.send(say("y"))
        assert alice.closed_with == NOT_HERE
        assert alice.texts == alice.named("ack") == []
        await trio.sleep(5)
        assert [each["event"] for each in bob.events] == ["welcome", "left", "message"]


# A review


class Becomes(Verifiers):
    """What a reload has made of every identity; `reserved` names are for nobody here."""

    def __init__(self, identity: Identity | None, reserved: str | None = None) -> None:
        super().__init__([])
        self._identity = identity
        self._reserved = reserved
        self.asked: list[str] = []

    def review(self, identity: Identity) -> Identity | None:
        self.asked.append(identity.key)
        return self._identity

    def allows(self, identity: Identity, username: str) -> bool:
        return username != self._reserved


def static(username: str | None = None, rooms: object = None) -> Identity:
    return Identity(username, FREE if rooms is None else Rights.parse(rooms), "static", FIRST_KEY)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (None, (4503, "the token is no longer valid")),
        (static("bob"), (4503, "the token is bound to another username now")),
        (static("alice", {"elsewhere": "rw"}), NOT_HERE),
        (static("alice", {"r": "r"}), None),
        (static("alice"), None),
        (static(), None),
    ],
)
async def test_a_review_ends_who_has_no_right_any_more(
    found: Identity | None, expected: tuple[int, str] | None
) -> None:
    async with open_house() as house:
        alice = await call(house)
        assert alice.authorization.review(Becomes(found)) == (expected is not None)
        assert not alice.authorization.review(Becomes(None)) or expected is None
        if expected is not None:
            await trio.testing.wait_all_tasks_blocked()
            assert alice.closed_with == expected


async def test_a_review_takes_rights_anew_for_who_stays() -> None:
    async with open_house() as house:
        alice = await call(house, rights=Rights.parse({"r": "r"}))
        await alice.send(say("one", "1"))
        alice.authorization.review(Becomes(static("alice", {"r": "rw"})))
        await alice.send(say("two", "2"))
        alice.authorization.review(Becomes(static("alice", {"r": "r"})))
        await alice.send(say("three", "3"))
        assert alice.texts == ["two"]
        assert [each["cid"] for each in alice.named("error")] == ["1", "3"]


async def test_a_review_asks_of_the_token_that_was_shown_last() -> None:
    async with open_house() as house:
        alice = await call(house, renew=knows(second=token(key="second")))
        await alice.send(command("auth", "a", token="second"))
        verifier = Becomes(token(key="second"))
        assert not alice.authorization.review(verifier)
        assert verifier.asked == ["second"]


@pytest.mark.parametrize("found", [static(), token(None, username="alice"), static("alice")])
async def test_a_review_ends_who_bears_a_name_that_is_reserved_for_others_now(found: Identity) -> None:
    async with open_house() as house:
        alice = await call(house)
        assert alice.authorization.review(Becomes(found, reserved="alice"))
        await trio.testing.wait_all_tasks_blocked()
        assert alice.closed_with == (4503, "the username is reserved for other tokens now")


async def test_a_review_may_set_an_end() -> None:
    async with open_house() as house:
        alice = await call(house)
        assert not alice.authorization.review(Becomes(token(at(10))))
        await trio.sleep(41)
        assert alice.closed_with == EXPIRED


class SlowEngine(MemoryEngine):
    """Opens `s` in its time."""

    def open(self, room: str, opened: Answered) -> None:
        later(partial(trio.sleep, 10 if room == "s" else 0), partial(super().open, room, opened))


@pytest.mark.parametrize(("rooms", "expected"), [({"r": "rw"}, NOT_HERE), ({"r": "r", "s": "r"}, None)])
async def test_who_loses_a_room_on_the_way_to_it_does_not_stay_there(
    rooms: object, expected: tuple[int, str] | None
) -> None:
    async with open_house(engine=SlowEngine(lambda: "e")) as house:
        alice = await call(house)
        await alice.send(command("switch_room", "s1", room="s"))
        await trio.sleep(5)
        assert not alice.authorization.review(Becomes(static("alice", rooms)))
        await trio.sleep(10)
        assert alice.closed_with == expected
        assert bool(house.names_in("s")) == (expected is None)
