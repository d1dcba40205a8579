"""What a room has shown to be changed since somebody began to read its log.

1. A reader remembers the place among the changes where it began, and afterwards brings what it has read
   up to what has been shown. So it never reads a second time, however fast messages are changed.
2. The room itself remembers the last place only, behind which nothing is. A change, and so its text, is kept
   for as long as a reader has an earlier place.
3. What was read may be newer than what has been shown. Then the older change leaves it as it is.

It doesn't know who reads, nor what is shown.
"""

from collections.abc import Sequence

from chatroom.core.messages import Deleted, Edited, Message, Page, Record
from chatroom.engines.changes import as_it_is


class Changes:
    """A place among the changes of one room."""

    __slots__ = ("_change", "_next")

    def __init__(self) -> None:
        self._change: Edited | Deleted | None = None
        self._next: Changes | None = None

    def add(self, change: Edited | Deleted) -> "Changes":
        """Put a change behind this place, which must be the last one. Returns the place behind the change."""
        self._change, self._next = change, Changes()
        return self._next

    def applied_to(self, records: Sequence[Record]) -> Sequence[Record]:
        """Records that were read since this place was the last one, with the changes behind it."""
        if self._change is None:  # nearly always
            return records
        found = {each.id: each for each in records}
        place: Changes | None = self
        while place is not None and (change := place._change) is not None:
            if (about := found.get(change.about)) is not None:
                found[about.id] = _changed(about, change)
            if isinstance(replaced := found.get(change.replaces), Edited):
                found[replaced.id] = replaced._replace(text="")
            place = place._next
        return [*found.values()]

    def applied_to_page(self, page: Page) -> Page:
        """The same of a page of history."""
        shown = self.applied_to(page.messages)
        return Page(tuple(each for each in shown if isinstance(each, Message)), page.more)


def _changed(record: Record, change: Edited | Deleted) -> Record:
    if not isinstance(record, Message) or change.id <= (record.deleted or record.edited or 0):
        return record
    return as_it_is(record, change)
