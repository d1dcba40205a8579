"""What an edit, a deletion or a sanction does to a log, for the engines that decide it themselves.

1. Nothing is decided before the `cid` has been looked up: a retry of what is stored is a Duplicate, even if
   its author has been muted since.
2. A message and all that changes it hold its text once: in the message, and in the record that brought it.
   What an edit or a deletion replaces is emptied in both.
3. A `cid` stays known. A retry of a text that is gone is a Duplicate, whatever its text.

It doesn't know where records are kept. (The functions of `redis/library.lua` follow the same rules.)
"""

import json
from typing import Any, assert_never

from chatroom.core.messages import (
    Delete,
    Deleted,
    Denial,
    Denied,
    Done,
    Draft,
    Edit,
    Edited,
    Message,
    Moderate,
    Moderated,
    NotFound,
    Record,
    Refused,
)
from chatroom.core.sanctions import LASTING, MAX_SANCTIONS, TAKES_BACK, Action, Sanction, Sanctions

# What is decided


def is_same(draft: Draft, record: Record) -> bool:
    """Whether `record`, which has the draft's author and `cid`, is what the draft asks for (rule 3)."""
    match draft.act, record:
        case None, Message():
            return record.text == draft.text or record.edited is not None or record.deleted is not None
        case Edit(about), Edited():
            return record.about == about and record.text in (draft.text, "")
        case Delete(about), Deleted():
            return record.about == about
        case Moderate(action, target), Moderated():
            asked = (action, target, draft.text, _end(draft.act, record.ts))
            return (record.action, record.target, record.text, record.until) == asked
    return False


def denied(draft: Draft, sanctions: Sanctions) -> Denied | None:
    """Why the author of a draft may not say anything now. Deleting one's own words needs no voice."""
    if draft.moderator or isinstance(draft.act, Moderate):
        return None
    found = sanctions.forbids(draft.username, draft.ts)
    if found is None or (isinstance(draft.act, Delete) and found.action is Action.MUTE):
        return None
    why = Denial.BANNED if found.action is Action.BAN else Denial.MUTED
    return Denied(why, found.until)


def judge_change(draft: Draft, act: Edit | Delete, target: Record | None) -> Refused | None:
    """Why the record `target` may not be changed in this way; None if it may. It is the one with the id."""
    if not isinstance(target, Message):
        return NotFound()
    if target.deleted is not None:
        return Done() if isinstance(act, Delete) else NotFound()
    if isinstance(act, Delete) and draft.moderator:
        return None
    if target.username != draft.username:
        return Denied(Denial.NOT_YOURS)
    if draft.ts - target.ts >= act.within:
        return Denied(Denial.TOO_LATE)
    return None


def judge_sanction(draft: Draft, act: Moderate, sanctions: Sanctions) -> Refused | None:
    """Why an action has nothing to do, or can't be taken; None if it can."""
    kind = TAKES_BACK.get(act.action)
    if kind is not None:
        return None if sanctions.find(kind, act.target, draft.ts) else Done()
    if act.action in LASTING and not sanctions.find(act.action, act.target, draft.ts):
        sanctions.expire(draft.ts)
        if len(sanctions) >= MAX_SANCTIONS:
            return Denied(Denial.TOO_MANY)
    return None


# What is stored


def changed(draft: Draft, act: Edit | Delete, record_id: int, target: Message) -> Edited | Deleted:
    """The record that changes `target`."""
    replaces = target.edited or target.id
    first = (record_id, draft.ts, draft.username)
    if isinstance(act, Edit):
        return Edited(*first, draft.text, draft.cid, target.id, replaces)
    return Deleted(*first, "", draft.cid, target.id, target.username, replaces)


def as_it_is(target: Message, change: Edited | Deleted) -> Message:
    """The message, changed."""
    if isinstance(change, Edited):
        return target._replace(text=change.text, edited=change.id)
    return target._replace(text="", deleted=change.id)


def moderated(draft: Draft, act: Moderate, record_id: int) -> Moderated:
    """The record of an action."""
    until = _end(act, draft.ts)
    return Moderated(
        record_id, draft.ts, draft.username, draft.text, draft.cid, act.action, act.target, until
    )


def _end(act: Moderate, ts: int) -> int | None:
    """When what was done at `ts` ends, if it does."""
    return None if act.seconds is None or act.action not in LASTING else ts + act.seconds * 1000


def sanction_of(record: Moderated) -> Sanction:
    """What a record says against whom."""
    return Sanction(record.action, record.target, record.username, record.until, record.text)


# Records in a store that has the first five fields in columns of their own


def rest_of(record: Record) -> str | None:
    """All that a record says beyond its first five fields, as JSON; None for a message as it was posted."""
    match record:
        case Message(edited=None, deleted=None):
            return None
        case Message():
            rest: dict[str, Any] = {"edited": record.edited, "deleted": record.deleted}
        case Edited():
            rest = {"event": "edited", "about": record.about, "replaces": record.replaces}
        case Deleted():
            rest = {
                "event": "deleted",
                "about": record.about,
                "author": record.author,
                "replaces": record.replaces,
            }
        case Moderated():
            rest = {
                "event": "moderated",
                "action": record.action,
                "target": record.target,
                "until": record.until,
            }
        case _:
            assert_never(record)
    return json.dumps({key: value for key, value in rest.items() if value is not None}, ensure_ascii=False)


def record_of(  # noqa: PLR0917  (the columns of a store)
    number: int, ts: int, username: str, text: str, cid: str | None, rest: str | None
) -> Record:
    """The record of these fields. Raises ValueError, KeyError if `rest` isn't from `rest_of`."""
    if rest is None:
        return Message(number, ts, username, text, cid)
    found = json.loads(rest)
    match found.get("event"):
        case None:
            return Message(number, ts, username, text, cid, found.get("edited"), found.get("deleted"))
        case "edited":
            return Edited(number, ts, username, text, cid, found["about"], found["replaces"])
        case "deleted":
            return Deleted(
                number, ts, username, text, cid, found["about"], found["author"], found["replaces"]
            )
        case "moderated":
            return Moderated(
                *(number, ts, username, text, cid),
                Action(found["action"]),
                found["target"],
                found.get("until"),
            )
        case event:
            raise ValueError(f"no record of ours: {event}")
