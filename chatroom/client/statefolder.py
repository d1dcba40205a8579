"""The folder in which the commands of a person keep what outlasts them: outboxes, typed lines, what was seen.

Owns where it is, and whether it can be trusted. Rules:

1. A folder that belongs to somebody else, or in which everybody may write, isn't used.
2. Root makes nothing in the home of another one, whose own commands couldn't use it then.

It doesn't know what is kept.
"""

import errno
import os
import stat
import tempfile
from collections.abc import Mapping
from contextlib import suppress

from chatroom.core.errors import StartError

_OF_THE_MOMENT = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ENFILE, errno.EMFILE, errno.ENOMEM}
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def state_folder(environ: Mapping[str, str]) -> str:
    """The folder; made if it isn't there. Raises StartError.

    It is $XDG_STATE_HOME/chatroom, else ~/.local/state/chatroom; where there is no home, nothing can be
    written there, or others may, it is one of our own for temporary files. What would be otherwise at
    another time is no reason for that: what is kept there would be missed then.
    """
    base, home = environ.get("XDG_STATE_HOME", ""), environ.get("HOME", "")
    if not os.path.isabs(base):
        base = os.path.join(home, ".local", "state") if os.path.isabs(home) else ""
    if base:
        folder = os.path.join(base, "chatroom")
        try:
            _make(folder)
            found = os.stat(folder)
            ours = found.st_uid == os.geteuid() and not found.st_mode & stat.S_IWOTH
            if ours and os.access(folder, os.W_OK | os.X_OK):
                return folder
        except OSError as error:
            if error.errno in _OF_THE_MOMENT:
                why = f"the folder {folder} can't be made ({error.strerror})"
                raise StartError(f"{why}: mend that, and try again") from None
    folder = f"chatroom-{os.geteuid()}"
    try:
        folder = os.path.join(tempfile.gettempdir(), folder)
        with suppress(FileExistsError):
            os.mkdir(folder, 0o700)
        found = os.lstat(folder)
    except OSError as error:
        raise StartError(
            f"there is no folder to keep it in ({folder}: {error.strerror}): set XDG_STATE_HOME to a folder"
        ) from None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & _OTHERS:
        raise StartError(f"{folder} isn't a folder of ours alone: set XDG_STATE_HOME to another place")
    return folder


def _make(folder: str) -> None:
    """Make it, with all that is missing above it, for us alone. Raises OSError, also by rule 2."""
    missing = []
    while not os.path.lexists(folder):
        missing.append(folder)
        folder = os.path.dirname(folder)
    if missing and os.geteuid() == 0 != os.stat(folder).st_uid:
        raise PermissionError
    for each in reversed(missing):
        with suppress(FileExistsError):
            os.mkdir(each, 0o700)
