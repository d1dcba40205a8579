"""How a typed line is shown while it is edited: by its characters, each as wide as every terminal has it.

1. What may act on a terminal, or hides something, shows as a sign. Controls are left to the editor, which
   shows them as `^[`.
2. Terminals don't agree how wide an emoji is that is made of several characters. So it is shown by its parts,
   and what only joins them or changes their look isn't shown. It is said as it was typed.

It doesn't know where the cursor is.
"""

from chatroom.client.printable import printable

INSTEAD = "\ufffd"
_UNSEEN = frozenset("\u200d\ufe0e\ufe0f") | frozenset(
    map(chr, (*range(0x1F3FB, 0x1F400), *range(0xE0020, 0xE0080)))
)
"""The joiner, selectors, colours of skin, and the tags of some flags."""
_FLAG_A, _FLAG_Z = "\U0001f1e6", "\U0001f1ff"


def shown(text: str) -> list[str]:
    """What to show of each character of one line of a text; empty if nothing."""
    return [_shown(character) for character in text]


def is_shown_as_it_is(text: str) -> bool:
    """Whether that is known at once, and without looking at each character of a long text."""
    return text.isascii() and "\t" not in text


def _shown(character: str) -> str:
    if character < "\xa0":
        return " " if character == "\t" else character
    if character in _UNSEEN:
        return ""
    if _FLAG_A <= character <= _FLAG_Z:
        return chr(ord(character) - ord(_FLAG_A) + ord("A"))
    return character if printable(character) == character else INSTEAD
