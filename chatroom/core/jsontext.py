"""JSON text as the server reads it: nothing that another reader might understand differently.

1. What RFC 8259 doesn't have is refused: NaN and infinities.
2. What readers disagree on is refused as well: integers beyond 64 bits, numbers that overflow, and a key
   given twice in one object (a RepeatedKey, which is no ValueError: the text is JSON).
3. No literal, however long, takes more than linear time.

It doesn't know what a text means, nor how deep it may be nested: that is for its caller. What Python itself
can't stand is a RecursionError.
"""

import json
from collections.abc import Callable
from typing import Any, NoReturn


class RepeatedKey(Exception):
    """An object has a key twice."""


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The members of an object. Raises RepeatedKey."""
    members = dict(pairs)
    if len(members) != len(pairs):
        raise RepeatedKey
    return members


def decoder(pairs_hook: Callable[[list[tuple[str, Any]]], Any] = unique) -> json.JSONDecoder:
    """A decoder that raises ValueError for what isn't JSON by the rules above."""
    return json.JSONDecoder(
        object_pairs_hook=pairs_hook, parse_int=_integer, parse_float=_number, parse_constant=_constant
    )


def _integer(digits: str) -> int:
    # Checked by length first: converting a huge literal costs quadratic time.
    if len(digits) > 20 or not -(2**63) <= (value := int(digits)) < 2**63:
        raise ValueError("integer beyond 64 bits")
    return value


def _number(digits: str) -> float:
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise ValueError("number too large")
    return value


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
