"""Tokens: where they come from, and that no mistake repeats one."""

import pytest

from chatroom.client.credentials import read_token


@pytest.mark.parametrize("text", ["", "a b", "a\nb", "\u00e9", "\x7f", "x" * 16385])
def test_a_token_that_no_header_can_hold(text: str) -> None:
    with pytest.raises(ValueError, match=r"^a token is one line of visible ASCII characters$"):
        read_token(text)
