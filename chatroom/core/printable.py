"""Printable: text that can't act on a terminal, forge a line or mislead the eye."""


def escape(text: str) -> str:
    """`text` with a JSON escape for each character that isn't printable; all others stay as they are.

    Not printable are control characters, every kind of line end, bidirectional marks, characters without
    width, lone surrogates, and spaces other than the ordinary one.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(ord(char)) for char in text)


def _escaped(code: int) -> str:
    if code < 0x10000:
        return f"\\u{code:04x}"
    high, low = divmod(code - 0x10000, 0x400)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"


def cut(text: str, limit: int) -> str:
    """At most `limit` characters of `text`, with an ellipsis if there were more."""
    return text if len(text) <= limit else text[:limit] + "…"
