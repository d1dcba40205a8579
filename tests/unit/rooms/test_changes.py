"""What was changed while somebody read the log."""

import gc
import weakref

from chatroom.core.messages import Deleted, Edited, Message, Page, Record
from chatroom.rooms.changes import Changes


def message(number: int, text: str, edited: int | None = None, deleted: int | None = None) -> Message:
    return Message(number, 0, "alice", text, None, edited, deleted)


def edit(number: int, text: str, replaces: int = 1) -> Edited:
    return Edited(number, 0, "alice", text, None, 1, replaces)


def deletion(number: int, replaces: int = 1) -> Deleted:
    return Deleted(number, 0, "carol", "", None, 1, "alice", replaces)


def after(read: list[Record], *changes: Edited | Deleted) -> list[Record]:
    """Records as they are given when these changes were shown since the reading began."""
    here = there = Changes()
    for change in changes:
        there = there.add(change)
    assert there.applied_to(read) is read
    return [*here.applied_to(read)]


def test_what_was_read_becomes_what_was_shown_since() -> None:
    read: list[Record] = [message(1, "one"), message(2, "two")]
    assert after(read) == read
    assert after(read, edit(3, "uno")) == [message(1, "uno", 3), read[1]]
    assert after(read, edit(3, "uno"), edit(4, "eins", 3)) == [message(1, "eins", 4), read[1]]
    assert after(read, edit(3, "uno"), deletion(4, 3)) == [message(1, "", 3, 4), read[1]]


def test_the_text_of_an_earlier_edit_is_gone() -> None:
    read: list[Record] = [message(1, "uno", 3), edit(3, "uno")]
    assert after(read, edit(4, "eins", 3)) == [message(1, "eins", 4), edit(3, "")]
    assert after(read, deletion(4, 3)) == [message(1, "", 3, 4), edit(3, "")]


def test_what_was_read_may_be_newer() -> None:
    for newer in (message(1, "eins", 4), message(1, "", 3, 5)):
        assert after([newer], edit(3, "uno"), edit(4, "eins", 3)) == [newer]


def test_other_records_stay_and_so_does_their_order() -> None:
    read: list[Record] = [message(5, "five"), message(3, "three"), deletion(7)]
    assert after(read, edit(8, "uno")) == read


def test_a_page_of_history_stays_a_page() -> None:
    changes = Changes()
    changes.add(edit(3, "uno"))
    assert changes.applied_to_page(Page((message(1, "one"),), more=True)) == Page(
        (message(1, "uno", 3),), True
    )


def test_a_change_is_kept_for_those_who_read_and_no_longer() -> None:
    class Watched(Changes):
        __slots__ = ("__weakref__",)

    here = Watched()
    seen = weakref.ref(here)
    there = here
    for number in range(100_000):  # and a long chain goes without trouble
        there = there.add(edit(number + 2, "x"))  # type: ignore[assignment]
    del here
    gc.collect()
    assert seen() is None
