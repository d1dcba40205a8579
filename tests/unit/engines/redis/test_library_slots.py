"""Slots of keys, held against the client library's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from chatroom.engines.redis.library import SlotMap, slot_of


@pytest.mark.parametrize(
    ("key", "slot"),
    [("123456789", 0x31C3), ("foo", 12182), ("{user1000}.following", 3443), ("foo{}{bar}", 8363)],
)
def test_known_slots(key: str, slot: int) -> None:
    assert slot_of(key) == slot


@given(st.text(alphabet="ab{}é:", max_size=12))
def test_slots_are_those_of_the_client_library(key: str) -> None:
    assert slot_of(key) == key_slot(key.encode())


def test_the_map_of_a_cluster() -> None:
    slots = SlotMap.read(
        [
            [5461, 10922, [b"b", 2, b"id", []], [b"r", 9, b"id", []]],
            [0, 5460, [b"", 1, b"id"]],
            [10924, 16383, [b"b", 2]],
        ],
        "seed",
    )
    assert slots.servers == [("seed", 1), ("b", 2)]
    assert [slots.owner(slot) for slot in (0, 5460, 5461, 10922, 10923, 10924, 16383)] == [
        *[("seed", 1)] * 2, *[("b", 2)] * 2, None, *[("b", 2)] * 2
    ]  # fmt: skip
    assert SlotMap([]).owner(0) is None
