"""Files that an operator names: each is read as a whole, and none beyond the size that makes sense for it."""

from chatroom.core.errors import StartError


def read_file(flag: str, path: str, *, most: int, kind: str) -> bytes:
    """What stands in the file that `flag` names, at most so many bytes. It blocks.

    Raises StartError, which names the file and asks for one of its `kind`.
    """
    try:
        with open(path, "rb") as file:
            source = file.read(most + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise StartError(f"{flag} {path} can't be read ({reason}): give {kind}") from None
    if len(source) > most:
        raise StartError(f"{flag} {path} is larger than {most // 1024:,} KiB: give {kind}")
    return source
