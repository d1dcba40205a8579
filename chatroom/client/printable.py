"""What may reach a terminal: text of others, without anything in it that acts on the terminal or the eye.

1. These characters never pass. Each becomes an escape in ASCII, as Python writes it: \\n, \\x1b, \\u202e.

       C0, DEL, C1                     they move the cursor, colour, ask, or end a line
       U+061C, U+200E, U+200F,
       U+202A to 202E, 2066 to 206F    they turn the order of what stands around them
       U+2028, U+2029, FFF9 to FFFB    ends of lines, and notes between lines
       surrogates, noncharacters       they can't be written

2. All others pass as they are: letters and marks of every script, emoji and what joins them, wide characters.

It doesn't know how many columns a text takes. `core.logevents.escape` is stricter: a log has no invisible
characters either.
"""

import re

_PLANES = "".join(f"{chr(plane << 16 | 0xFFFE)}{chr(plane << 16 | 0xFFFF)}" for plane in range(17))
_FORBIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ud800-\udfff\ufdd0-\ufdef\ufff9-\ufffb"
    f"{_PLANES}]"
)
_TAB = "    "


def printable(text: str) -> str:
    """`text` on one line, with an escape for each character that may not reach a terminal."""
    return _FORBIDDEN.sub(_escaped, text)


def printable_lines(text: str) -> list[str]:
    """The lines of `text`, at least one, each printable. A line ends at \\n or \\r\\n; tabs become blanks."""
    return [printable(line.removesuffix("\r").replace("\t", _TAB)) for line in text.split("\n")]


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")
