"""Which of a Cluster's 16,384 slots a key belongs to.

1. If a key has a brace and later a closing one with something in between, that alone is hashed: keys that
   share it lie together.
2. The hash is CRC16 as XMODEM has it, which the standard library computes.
"""

from binascii import crc_hqx
from bisect import bisect_right
from collections.abc import Iterable
from typing import Any

SLOTS = 16_384

Place = tuple[str, int]


def slot_of(key: str) -> int:
    """The slot of `key`."""
    before, _, rest = key.partition("{")
    tag, closed, _ = rest.partition("}")
    del before
    return crc_hqx((tag if closed and tag else key).encode(), 0) % SLOTS


class SlotMap:
    """Which server, by host and port, has which slots."""

    def __init__(self, ranges: Iterable[tuple[int, int, Place]]) -> None:
        """A range is its first and its last slot, and who has them."""
        self._ranges = sorted(ranges)
        self._firsts = [first for first, _, _ in self._ranges]

    @classmethod
    def read(cls, reply: Any, asked: str) -> "SlotMap":
        """From what CLUSTER SLOTS answers; a server that names no host is at that which was `asked`."""
        return cls(
            (first, last, (host.decode() if host else asked, port))
            for first, last, (host, port, *_), *_ in reply
        )

    @property
    def places(self) -> list[Place]:
        """All servers."""
        return list(dict.fromkeys(place for _, _, place in self._ranges))

    def owner(self, slot: int) -> Place | None:
        """Who has a slot, if anybody has."""
        at = bisect_right(self._firsts, slot) - 1
        if at >= 0 and slot <= self._ranges[at][1]:
            return self._ranges[at][2]
        return None
