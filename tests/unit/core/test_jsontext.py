"""JSON that readers could understand differently is none."""

import time

import pytest

from chatroom.core.jsontext import RepeatedKey, decoder


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{}", {}),
        ('{"a": [1, -2.5, "b", null, true]}', {"a": [1, -2.5, "b", None, True]}),
        ("9223372036854775807", 2**63 - 1),
        ("-9223372036854775808", -(2**63)),
    ],
)
def test_json_is_read(text: str, value: object) -> None:
    assert decoder().decode(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "NaN",
        "Infinity",
        "[-Infinity]",
        "1e999",
        "-1e999",
        "9223372036854775808",
        "1" * 4000,
        "",
        "{",
        "\ufeff{}",
    ],
)
def test_what_is_no_json_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        decoder().decode(text)


@pytest.mark.parametrize("text", ['{"a":1,"a":1}', '{"b":{"a":1,"\\u0061":2}}'])
def test_a_key_given_twice_is_told_apart(text: str) -> None:
    with pytest.raises(RepeatedKey):
        decoder().decode(text)
    assert decoder(list).decode('{"a":1,"a":2}') == [("a", 1), ("a", 2)]


def test_a_huge_literal_takes_no_time() -> None:
    begun = time.process_time()
    with pytest.raises(ValueError, match="64 bits"):
        decoder().decode("1" * 1_000_000)
    assert time.process_time() - begun < 1
