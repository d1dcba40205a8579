"""The history checker: silent on a clean history, and no fault that is planted in one goes unseen."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.support.history import Checker, Content, Entered, Log, Record, Said, Saw, Told

ALICE = Content("alice", "a1", "hi")
BOB = Content("bob", "b1", "ho")
AGAIN = Content("alice", "a2", "hi")
OTHER = Content("carol", "c1", "elsewhere")
RESUMED = Entered(3, "r", "e", 3, 2, since=1, recovered=True)

EDIT = Content("alice", "e1", "hi!", about=1)
DELETION = Content("bob", "d1", "", about=2, deletes=True)

Story = tuple[list[Record], dict[str, list[tuple[int, Content]]]]


def clean() -> Story:
    """Alice (subscriptions 1 and 3) and Bob (2) in r, Carol (4) in s; Alice comes back and resumes."""
    records: list[Record] = [
        Entered(1, "r", "e", 0, 0),
        Said("r", ALICE),
        Saw(1, "r", 1, ALICE),
        Told("r", "alice", "a1", 1),
        Entered(2, "r", "e", 1, 1),
        Saw(2, "r", 1, ALICE),
        Said("r", BOB),
        Saw(2, "r", 2, BOB),
        Told("r", "bob", "b1", 2),
        Said("r", AGAIN),
        RESUMED,
        Saw(3, "r", 2, BOB),
        Saw(3, "r", 3, AGAIN),
        Said("r", AGAIN),
        Told("r", "alice", "a2", 3),
        Saw(2, "r", 3, AGAIN),
        Entered(4, "s", "e", 0, 0),
        Said("s", OTHER),
        Saw(4, "s", 1, OTHER),
    ]
    return records, {"r": [(1, ALICE), (2, BOB), (3, AGAIN)], "s": [(1, OTHER)]}


def judge(records: list[Record], log: Log) -> list[str]:
    checker = Checker()
    for record in records:
        checker.apply(record)
    return checker.judge(log)


def test_a_clean_history_has_no_fault() -> None:
    assert judge(*clean()) == []


def test_a_history_is_judged_as_often_as_wanted() -> None:
    records, log = clean()
    checker = Checker()
    for record in records:
        checker.apply(record)
    assert checker.judge(log) == []
    checker.apply(Saw(4, "r", 4, BOB))
    assert len(checker.judge(log)) == 1
    assert len(checker.judge(log)) == 1, "what was found stays found"


def acknowledged_lost(story: Story) -> None:
    records, log = story
    log["r"].pop()
    records[:] = [each for each in records if not (isinstance(each, Saw) and each.id == 3)]


def seen_lost(story: Story) -> None:
    records, log = story
    log["r"].pop()
    records[:] = [each for each in records if not (isinstance(each, Told) and each.id == 3)]


def replaced(story: Story) -> None:
    story[1]["r"][0] = (1, replace(ALICE, text="other"))


def stored_twice(story: Story) -> None:
    story[1]["r"].append((4, AGAIN))


def shown_twice(story: Story) -> None:
    story[0].append(Saw(2, "r", 3, AGAIN))


def hole_in_the_log(story: Story) -> None:
    story[1]["s"][0] = (2, OTHER)


def hole_in_a_subscription(story: Story) -> None:
    story[0].remove(Saw(3, "r", 2, BOB))


def hole_before_a_replay(story: Story) -> None:
    story[0].remove(Saw(2, "r", 1, ALICE))


def out_of_order(story: Story) -> None:
    first, second = story[0].index(Saw(3, "r", 2, BOB)), story[0].index(Saw(3, "r", 3, AGAIN))
    story[0][first], story[0][second] = story[0][second], story[0][first]


def never_said(story: Story) -> None:
    story[0].remove(Said("r", BOB))


def kept_though_never_said(story: Story) -> None:
    story[1]["s"].append((2, Content("mallory", "m", "boo")))


def kept_though_refused(story: Story) -> None:
    story[0].append(Told("s", "carol", "c1", None))


def other_id_on_retry(story: Story) -> None:
    story[0].append(Told("r", "alice", "a1", 2))


def other_content_for_another(story: Story) -> None:
    story[0][story[0].index(Saw(3, "r", 2, BOB))] = Saw(3, "r", 2, ALICE)


def shown_to_a_stranger(story: Story) -> None:
    story[0].append(Saw(4, "r", 4, BOB))


def shown_before_entering(story: Story) -> None:
    story[0].insert(0, Saw(9, "r", 1, ALICE))


def recovery_denied(story: Story) -> None:
    story[0][story[0].index(RESUMED)] = Entered(3, "r", "e", 3, 2, since=1, recovered=False)


def recovery_from_another_place(story: Story) -> None:
    story[0][story[0].index(RESUMED)] = Entered(3, "r", "e", 3, 2, since=0, recovered=True)


@pytest.mark.parametrize(
    ("plant", "kind"),
    [
        (acknowledged_lost, "lost"),
        (seen_lost, "lost"),
        (replaced, "lost"),
        (stored_twice, "duplicate"),
        (shown_twice, "duplicate"),
        (hole_in_the_log, "hole"),
        (hole_in_a_subscription, "hole"),
        (hole_before_a_replay, "hole"),
        (out_of_order, "reorder"),
        (never_said, "phantom"),
        (kept_though_never_said, "phantom"),
        (kept_though_refused, "phantom"),
        (other_id_on_retry, "changed"),
        (other_content_for_another, "changed"),
        (shown_to_a_stranger, "stranger"),
        (shown_before_entering, "stranger"),
        (recovery_denied, "unrecovered"),
        (recovery_from_another_place, "unrecovered"),
    ],
)
def test_a_planted_fault_is_found(plant: Callable[[Story], None], kind: str) -> None:
    story = clean()
    plant(story)
    found = judge(*story)
    assert any(fault.startswith(kind + ": ") for fault in found), found


def changed() -> Story:
    """Alice edits her message, Bob deletes his, and Dave comes later."""
    records, log = clean()
    records += [
        Said("r", EDIT),
        Saw(2, "r", 4, EDIT),
        Told("r", "alice", "e1", 4),
        Said("r", DELETION),
        Saw(2, "r", 5, DELETION),
        Entered(5, "r", "e", 5, 5),
        Saw(5, "r", 1, replace(ALICE, text="hi!", changed=4)),
        Saw(5, "r", 2, replace(BOB, text="", changed=5)),
        Saw(5, "r", 3, AGAIN),
        Saw(5, "r", 4, EDIT),
    ]
    log["r"][:2] = [(1, replace(ALICE, text="hi!", changed=4)), (2, replace(BOB, text="", changed=5))]
    return records, log


def test_edits_and_deletions_are_no_faults() -> None:
    assert judge(*changed()) == []
    records, log = changed()
    log["r"].append((6, OTHER))
    records.append(Said("r", OTHER))
    assert judge(records, log) == [], "changes have ids of their own among those of messages"


def edit_lost(story: Story) -> None:
    story[1]["r"][0] = (1, ALICE)


def deletion_lost(story: Story) -> None:
    story[0][:] = [each for each in story[0] if not (isinstance(each, Saw) and each.subscription == 5)]
    story[1]["r"][1] = (2, BOB)


def edit_of_nobody(story: Story) -> None:
    story[1]["r"][2] = (3, replace(AGAIN, text="what", changed=9))


def edit_doubled(story: Story) -> None:
    story[0].append(Told("r", "alice", "e1", 6))


def text_of_another_edit(story: Story) -> None:
    story[0][-3:] = [Saw(5, "r", 3, AGAIN), Saw(5, "r", 4, EDIT)]
    story[1]["r"][0] = (1, replace(ALICE, text="ha!", changed=4))


def edit_behind_a_deletion(story: Story) -> None:
    late = Content("bob", "e2", "back", about=2)
    story[0].extend([Said("r", late), Told("r", "bob", "e2", 6)])


def edit_that_says_another_text(story: Story) -> None:
    story[0].append(Saw(2, "r", 6, replace(EDIT, text="ho!")))


def refused_deletion_done(story: Story) -> None:
    story[0].append(Told("r", "bob", "d1", None))


@pytest.mark.parametrize(
    ("plant", "kind"),
    [
        (edit_lost, "lost"),
        (deletion_lost, "lost"),
        (edit_of_nobody, "phantom"),
        (edit_doubled, "changed"),
        (text_of_another_edit, "changed"),
        (edit_behind_a_deletion, "reorder"),
        (edit_that_says_another_text, "phantom"),
        (refused_deletion_done, "phantom"),
    ],
)
def test_a_planted_fault_of_a_change_is_found(plant: Callable[[Story], None], kind: str) -> None:
    story = changed()
    plant(story)
    found = judge(*story)
    assert any(fault.startswith(kind + ": ") for fault in found), found


@pytest.mark.parametrize(
    ("missed", "recovered", "clean"),
    [(500, True, True), (501, False, True), (500, False, False), (501, True, False)],
)
def test_a_resume_reaches_so_far_and_no_further(missed: int, recovered: bool, clean: bool) -> None:
    replay = missed if recovered else 50
    entered = Entered(1, "r", "e", 1000, replay, since=1000 - missed, recovered=recovered)
    assert (judge([entered], {}) == []) == clean


def test_a_new_epoch_is_no_fault_of_a_resume() -> None:
    records, log = clean()
    records.append(Entered(5, "s", "new", 1, 1, since=1, recovered=False))
    records.append(Saw(5, "s", 1, OTHER))
    assert judge(records, log) == []
