"""A terminal's screen, as far as our client uses one: what is written goes in, what is to be seen comes out.

1. It is strict: a control character or sequence that isn't in the tables below is an error. So whatever it
   shows had none but those that the client is meant to write.
2. Characters are as wide as Unicode says: wide ones take two columns, marks none.
3. A line goes on in the next row, unless that is switched off. Then its last column is written over.
4. When it is made narrower, lines are cut and not wrapped anew. Terminals differ there.
"""

import re
import unicodedata

_SEQUENCE = re.compile(r"\x1b\[(\??)([0-9;]*)([A-Za-z])")
_WRAPPING = 7
_SWITCHED = frozenset({1, 7, 12, 25, 1004, 2004})
"""Modes that may be set and reset: cursor keys, wrapping, blinking, the cursor, focus, bracketed paste."""
COLOURS = re.compile(r"0?|(0;)?(1|2|7|22|39|49|(3|9|4|10)[0-7]|38;5;[0-9]{1,3})(;(1|2|7|(4|10)[0-7]))*")
"""What may stand in a sequence that sets colours."""


class Screen:
    """What is to be seen."""

    def __init__(self, columns: int = 80, rows: int = 24) -> None:
        self.columns, self.rows = columns, rows
        self.scrolled: list[str] = []
        """The lines that have left the screen at its top."""
        self.cells: list[list[str]] = [[]]
        self.row = self.column = 0
        self.modes: set[int] = set()
        self.colours: list[str] = []
        self._wraps = True
        self._rest = ""

    @property
    def lines(self) -> list[str]:
        """The lines on the screen down to the last one with something on it."""
        lines = [_text(line) for line in self.cells]
        while lines and not lines[-1]:
            lines.pop()
        return lines

    @property
    def text(self) -> str:
        """Everything that was ever shown and is still there, scrolled away or not."""
        return "\n".join([*self.scrolled, *self.lines])

    def resize(self, columns: int, rows: int) -> None:
        """The window has another size. What no longer fits scrolls away above the cursor."""
        self.columns, self.rows = columns, rows
        for line in self.cells:
            del line[columns:]
        while self.row >= rows:
            self._scroll()
        del self.cells[rows:]
        self.column = min(self.column, columns - 1)

    def feed(self, text: str) -> None:
        """Something is written. Raises AssertionError at what nobody may write."""
        text, self._rest = self._rest + text, ""
        place = 0
        while place < len(text):
            char = text[place]
            if char == "\x1b":
                found = _SEQUENCE.match(text, place)
                if found is None:
                    assert len(text) - place < 24, f"no sequence of ours: {text[place : place + 40]!r}"
                    self._rest = text[place:]
                    return
                self._sequence(found)
                place = found.end()
                continue
            self._character(char)
            place += 1

    def _sequence(self, found: re.Match[str]) -> None:
        private, numbers, kind = found.groups()
        number = int(numbers) if numbers.isdecimal() else 0
        match private, kind:
            case "?", "h" | "l":
                assert number in _SWITCHED, found[0]
                (self.modes.add if kind == "h" else self.modes.discard)(number)
                if number == _WRAPPING:
                    self._wraps = kind == "h"
            case "", "m":
                assert COLOURS.fullmatch(numbers), found[0]
                self.colours.append(numbers)
            case "", "A":
                self.row = max(0, self.row - (number or 1))
            case "", "B":
                self._to_row(min(self.rows - 1, self.row + (number or 1)))
            case "", "C":
                self.column = min(self.columns - 1, self.column + (number or 1))
            case "", "D":
                self.column = max(0, min(self.column, self.columns - 1) - (number or 1))
            case "", "H":
                assert numbers in {"", "0;0", "1;1"}, found[0]
                self.row = self.column = 0
            case "", "J":
                if number == 2:
                    self.cells = [[] for _ in self.cells]
                else:
                    assert number == 0, found[0]
                    del self.cells[self.row + 1 :]
                    del self.cells[self.row][self.column :]
            case "", "K":
                assert number == 0, found[0]
                del self.cells[self.row][self.column :]
            case _:
                raise AssertionError(f"no sequence of ours: {found[0]!r}")

    def _character(self, char: str) -> None:
        if char == "\r":
            self.column = 0
        elif char == "\n":
            self._to_row(self.row + 1)
        elif char == "\b":
            self.column = max(0, self.column - 1)
        elif char == "\a":
            pass
        else:
            assert unicodedata.category(char) not in {"Cc", "Cs", "Zl", "Zp"}, f"acts: {char!r}"
            assert char not in _BIDI, f"a character that turns the text around: {char!r}"
            self._put(char)

    def _put(self, char: str) -> None:
        if unicodedata.combining(char) or unicodedata.category(char) in {"Mn", "Me", "Cf"}:
            line = self.cells[self.row]
            place = min(self.column, len(line)) - 1
            if place > 0 and line[place] == _BEHIND_WIDE:
                place -= 1
            if place >= 0:
                line[place] += char
            return
        width = 2 if unicodedata.east_asian_width(char) in "WF" else 1
        if self.column + width > self.columns and self._wraps:
            self.column = 0
            self._to_row(self.row + 1)
        self.column = min(self.column, self.columns - width)
        line = self.cells[self.row]
        line += [""] * (self.column + width - len(line))
        line[self.column : self.column + width] = [char, *[_BEHIND_WIDE] * (width - 1)]
        self.column += width

    def _to_row(self, row: int) -> None:
        self.row = row
        while len(self.cells) <= self.row:
            self.cells.append([])
        while self.row >= self.rows:
            self._scroll()

    def _scroll(self) -> None:
        self.scrolled.append(_text(self.cells.pop(0)))
        self.row -= 1


def _text(line: list[str]) -> str:
    return "".join(cell or " " for cell in line if cell != _BEHIND_WIDE).rstrip()


_BEHIND_WIDE = "\0"
"""The second column of a wide character."""
_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
