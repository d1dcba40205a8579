"""Counts of connections and of wrong tokens: right after any sequence of events, gone when all have left."""

import math
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from chatroom.core.connectionlimits import ConnectionCounts, ConnectionLimits, Slot
from chatroom.core.errors import Refusal
from chatroom.core.http import Peer
from chatroom.core.limits import Limits

LIMITS = Limits(connections=6, per_user=2, per_address=3, wrong_tokens=3, wrong_token_seconds=60)
HERE = Peer("127.0.0.1", exempt=True)
THERE = Peer("192.0.2.1")
ELSEWHERE = Peer("192.0.2.2")


def refused(check: Callable[..., None], *args: object) -> tuple[int, str, str]:
    """The status, text and Retry-After of the refusal that `check` raises."""
    with pytest.raises(Refusal) as caught:
        check(*args)
    [(name, seconds)] = caught.value.headers
    assert name == "Retry-After"
    return caught.value.status, caught.value.text, seconds


def test_an_address_has_so_many_connections() -> None:
    limits = ConnectionLimits(LIMITS)
    slots = [limits.take_slot(THERE, f"u{number}") for number in range(3)]
    assert refused(limits.check_address, THERE) == (
        429,
        "Too many connections from your address",
        "5",
    )
    limits.check_address(ELSEWHERE)
    slots[1].release()
    limits.check_address(THERE)


def test_a_username_has_so_many_connections_from_wherever() -> None:
    limits = ConnectionLimits(LIMITS)
    first = limits.take_slot(THERE, "alice")
    limits.check_user("alice")
    limits.take_slot(HERE, "alice")
    assert refused(limits.check_user, "alice") == (
        429,
        "Too many connections of this username",
        "5",
    )
    limits.check_user("Alice")
    first.release()
    limits.check_user("alice")


def test_the_server_has_so_many_connections_exempt_ones_included() -> None:
    limits = ConnectionLimits(LIMITS)
    slots = [limits.take_slot(HERE, f"u{number}") for number in range(6)]
    assert refused(limits.check_full) == (503, "The server is full", "5")
    slots[0].release()
    limits.check_full()


def test_limits_of_one_let_one_in() -> None:
    limits = ConnectionLimits(Limits(connections=1, per_user=1, per_address=1))
    limits.check_address(THERE)
    limits.check_user("alice")
    limits.check_full()


def test_exempt_peers_have_no_address_to_count() -> None:
    limits = ConnectionLimits(LIMITS)
    for number in range(6):
        limits.take_slot(HERE, f"u{number}")
    for _ in range(100):
        limits.wrong_token(HERE, 0)
    limits.check_address(HERE)
    assert limits.statistics() == ConnectionCounts(connections=6, usernames=6, addresses=0, suspects=0)


def test_after_too_many_wrong_tokens_further_ones_wait_until_a_minute_after_the_first() -> None:
    limits = ConnectionLimits(LIMITS)
    for now in (0, 10, 20):
        limits.wrong_token(THERE, now)
    text = "Too many wrong tokens from your address"
    assert refused(limits.wrong_token, THERE, 20.5) == (429, text, "40")
    assert refused(limits.wrong_token, THERE, 59.99)[2] == "1"
    limits.wrong_token(ELSEWHERE, 20.5)
    limits.wrong_token(THERE, 60)
    assert refused(limits.wrong_token, THERE, 60)[2] == "10"


def test_wrong_tokens_that_are_told_to_wait_do_not_prolong_it() -> None:
    limits = ConnectionLimits(LIMITS)
    for now in (0, 1, 2):
        limits.wrong_token(THERE, now)
    for now in range(3, 60):
        assert refused(limits.wrong_token, THERE, now)[2] == str(60 - now)
    limits.wrong_token(THERE, 60)


def test_wrong_tokens_are_no_reason_to_refuse_the_address() -> None:
    """Others behind it may have the right ones."""
    limits = ConnectionLimits(LIMITS)
    for _ in range(3):
        limits.wrong_token(THERE, 0)
    assert refused(limits.wrong_token, THERE, 0)[0] == 429
    limits.check_address(THERE)


SAME = [
    ("192.0.2.1", "::ffff:192.0.2.1"),
    ("192.0.2.1", "::FFFF:C000:201"),
    ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff"),
    ("2001:db8:1:2::1", "2001:0DB8:0001:0002::"),
    ("fe80::1%eth0", "fe80::2%eth1"),
]
DIFFERENT = [
    ("2001:db8:1:2::1", "2001:db8:1:3::1"),
    ("192.0.2.1", "::192.0.2.1"),
    ("::", "0.0.0.0"),
    ("what/ever", "192.0.2.1"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_addresses_of_one_owner_count_together(one: str, other: str) -> None:
    limits = ConnectionLimits(LIMITS)
    for address in (one, other, one):
        limits.take_slot(Peer(address), "alice")
    assert refused(limits.check_address, Peer(other))[0] == 429
    assert limits.statistics().addresses == 1
    limits = ConnectionLimits(LIMITS)
    for address in (one, other, one):
        limits.wrong_token(Peer(address), 0)
    assert refused(limits.wrong_token, Peer(other), 0)[0] == 429
    assert limits.statistics().suspects == 1


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_addresses_of_different_owners_count_apart(one: str, other: str) -> None:
    limits = ConnectionLimits(LIMITS)
    for _ in range(3):
        limits.take_slot(Peer(one), "alice")
        limits.wrong_token(Peer(one), 0)
    limits.check_address(Peer(other))
    limits.wrong_token(Peer(other), 0)


def test_a_slot_is_released_once_however_often_it_is_asked() -> None:
    limits = ConnectionLimits(LIMITS)
    other = limits.take_slot(THERE, "alice")
    with suppress(RuntimeError), limits.take_slot(THERE, "alice") as slot:
        assert limits.statistics().connections == 2
        raise RuntimeError
    slot.release()
    slot.release()
    assert limits.statistics() == ConnectionCounts(1, 1, 1, 0)
    other.release()
    assert limits.statistics() == ConnectionCounts(0, 0, 0, 0)


def test_addresses_that_tried_wrong_tokens_are_forgotten_in_time() -> None:
    limits = ConnectionLimits(LIMITS)
    for number in range(100):
        limits.wrong_token(Peer(f"192.0.2.{number}"), 0)
    assert limits.statistics().suspects == 100
    for step in range(100):
        limits.wrong_token(THERE, 60 + 20 * step)
    assert limits.statistics().suspects == 1


def test_of_too_many_suspects_the_one_longest_quiet_is_forgotten() -> None:
    limits = ConnectionLimits(LIMITS, max_suspects=3)
    for number in (1, 2, 3):
        for _ in range(3):
            limits.wrong_token(Peer(f"192.0.2.{number}"), number)
    assert refused(limits.wrong_token, Peer("192.0.2.1"), 4)[0] == 429
    limits.wrong_token(Peer("192.0.2.4"), 5)
    assert limits.statistics().suspects == 3
    assert refused(limits.wrong_token, Peer("192.0.2.1"), 6)[0] == 429
    assert refused(limits.wrong_token, Peer("192.0.2.3"), 6)[0] == 429
    limits.wrong_token(Peer("192.0.2.2"), 6)


SIXES = [Peer("::ffff:192.0.2.1"), Peer("2001:db8::1"), Peer("2001:db8::2")]
PEERS = st.sampled_from([HERE, THERE, ELSEWHERE, Peer("unix", exempt=True), *SIXES])
OWNERS = {"::ffff:192.0.2.1": "192.0.2.1", "2001:db8::2": "2001:db8::1"}
USERS = st.sampled_from(["alice", "bob", "carol"])


def owner(peer: Peer) -> str:
    return OWNERS.get(peer.address, peer.address)


class ConnectionLimitsMachine(RuleBasedStateMachine):
    """Handshakes, departures and wrong tokens in any order, against lists that are counted each time."""

    def __init__(self) -> None:
        super().__init__()
        self.limits = ConnectionLimits(LIMITS)
        self.now = 0.0
        self.inside: list[tuple[Slot, Peer, str]] = []
        self.wrong: list[tuple[str, float]] = []

    def expected(self, peer: Peer, user: str) -> int | None:
        addresses = Counter(owner(other) for _, other, _ in self.inside if not other.exempt)
        if addresses[owner(peer)] >= 3:
            return 429
        if sum(name == user for _, _, name in self.inside) >= 2:
            return 429
        return 503 if len(self.inside) >= 6 else None

    @rule(peer=PEERS, user=USERS)
    def handshake(self, peer: Peer, user: str) -> None:
        expected = self.expected(peer, user)
        try:
            self.limits.check_address(peer)
            self.limits.check_user(user)
            self.limits.check_full()
        except Refusal as refusal:
            assert refusal.status == expected  # noqa: PT017 (either way is right)
            assert int(dict(refusal.headers)["Retry-After"]) >= 1  # noqa: PT017
        else:
            assert expected is None
            self.inside.append((self.limits.take_slot(peer, user), peer, user))

    @rule(index=st.integers(0, 5))
    def leave(self, index: int) -> None:
        if index < len(self.inside):
            slot = self.inside.pop(index)[0]
            slot.release()
            slot.release()

    @rule(peer=PEERS)
    def wrong_token(self, peer: Peer) -> None:
        recent = [at for who, at in self.wrong if who == owner(peer) and at > self.now - 60]
        try:
            self.limits.wrong_token(peer, self.now)
        except Refusal as refusal:
            assert len(recent) == 3
            assert dict(refusal.headers)["Retry-After"] == str(math.ceil(min(recent) + 60 - self.now))  # noqa: PT017
        else:
            assert len(recent) < 3
            if not peer.exempt:
                self.wrong.append((owner(peer), self.now))

    @rule(seconds=st.sampled_from([0.5, 10, 30, 59, 60]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def the_counts_are_right(self) -> None:
        statistics = self.limits.statistics()
        assert statistics.connections == len(self.inside)
        assert statistics.usernames == len({user for _, _, user in self.inside})
        assert statistics.addresses == len({owner(peer) for _, peer, _ in self.inside if not peer.exempt})

    def teardown(self) -> None:
        for slot, _, _ in self.inside:
            slot.release()
        assert self.limits.statistics().connections == 0
        assert not self.limits._usernames
        assert not self.limits._addresses


ConnectionLimitsMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestConnectionLimitsMachine = ConnectionLimitsMachine.TestCase
