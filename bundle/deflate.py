"""A compressor whose output depends on its input alone: gzip (RFC 1952) around deflate (RFC 1951).

What zlib makes of the same bytes differs between its releases, its builds and its replacements. All of them
read what this makes. It takes the fixed codes, and looks for a match only where the next bytes were seen
last: a program's source becomes three eighths of its size, at some two megabytes in a second.
"""

import functools
import re
import zlib
from bisect import bisect_right
from collections.abc import Iterator

_WINDOW = 32_768  # how far back a match may lie
_LONGEST = 258
_KEY = 5  # the bytes by which a match is found, and so the length of the shortest
_END = 256
_FLUSH = 50_000  # codes that are gathered before they become bytes
_STEP = re.compile(rb"\w+|\s+|.", re.DOTALL)  # where no match was found, the next is looked for behind this
_HEADER = b"\x1f\x8b\x08" + bytes(6) + b"\xff"  # no name, no time, no system


def gzipped(content: bytes) -> bytes:
    """What `gzip.decompress` makes `content` of."""
    trailer = zlib.crc32(content).to_bytes(4, "little") + len(content).to_bytes(4, "little")
    return _HEADER + _deflated(content) + trailer


def _deflated(content: bytes) -> bytes:
    """One block. Bits are gathered as text, since that is the quickest that Python can do."""
    whole = bytearray()
    codes = ["1", "10"]  # the last block; its codes are the fixed ones, and the low bit of a number is first
    for code in _codes(content):
        codes.append(code)
        if len(codes) > _FLUSH:
            bits = "".join(codes)
            full = len(bits) // 8 * 8
            whole += _as_bytes(bits[:full])
            codes = [bits[full:]]
    return bytes(whole + _as_bytes("".join(codes)))


def _as_bytes(bits: str) -> bytes:
    return int(bits[::-1], 2).to_bytes((len(bits) + 7) // 8, "little")


def _codes(content: bytes) -> Iterator[str]:
    """The bits of what the content is made of: bytes, and matches with what was there before."""
    seen: dict[bytes, int] = {}
    at = 0
    while at < len(content):
        key = content[at : at + _KEY]
        before = seen.get(key, -_WINDOW - 1)
        seen[key] = at
        if at - before <= _WINDOW and len(key) == _KEY:
            length = _common(content, before, at)
            yield _LENGTHS[length] + _distance(at - before)
            at += length
        else:
            step = _STEP.match(content, at)
            assert step
            yield "".join([_SYMBOLS[byte] for byte in step.group()])
            at = step.end()
    yield _SYMBOLS[_END]


def _common(content: bytes, before: int, at: int) -> int:
    """How many bytes are the same from both places on, of which `_KEY` are known to be."""
    least, most = _KEY, min(_LONGEST, len(content) - at)
    while least < most:
        middle = (least + most + 1) // 2
        if content[before + least : before + middle] == content[at + least : at + middle]:
            least = middle
        else:
            most = middle - 1
    return least


# The tables of RFC 1951, section 3.2.5 and 3.2.6


def _symbols() -> Iterator[str]:
    for first, last, code, width in (
        (0, 143, 48, 8),
        (144, 255, 400, 9),
        (256, 279, 0, 7),
        (280, 287, 192, 8),
    ):
        for symbol in range(first, last + 1):
            yield format(code + symbol - first, f"0{width}b")


def _ranges(start: int, widths: list[int]) -> list[tuple[int, int]]:
    """Where the range of each symbol starts, and how many more bits say the place in it."""
    ranges = []
    for width in widths:
        ranges.append((start, width))
        start += 1 << width
    return ranges


def _low_first(number: int, width: int) -> str:
    return format(number, f"0{width}b")[::-1] if width else ""


_SYMBOLS = list(_symbols())
_LENGTH_RANGES = _ranges(3, [0] * 4 + [width for width in range(6) for _ in range(4)])
_LENGTHS = {
    start + place: _SYMBOLS[symbol] + _low_first(place, width)
    for symbol, (start, width) in enumerate(_LENGTH_RANGES, 257)
    for place in range(1 << width)
} | {_LONGEST: _SYMBOLS[285]}
_DISTANCE_RANGES = _ranges(1, [0] * 2 + [width for width in range(14) for _ in range(2)])


@functools.cache
def _distance(far: int) -> str:
    symbol = bisect_right(_DISTANCE_RANGES, (far, 99)) - 1
    start, width = _DISTANCE_RANGES[symbol]
    return format(symbol, "05b") + _low_first(far - start, width)
