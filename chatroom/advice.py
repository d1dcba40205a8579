"""Advice: what an operator should hear, in the log, once the server runs.

Not before: a server that can't start says one thing only, namely why.
"""

import logging
import resource

from chatroom.config.settings import Settings
from chatroom.core.journal import note

SPARE_DESCRIPTORS = 200
"""Beside those of the connections: listeners, files, and sockets that haven't been let in yet."""


def advise(settings: Settings, unbound: int) -> None:
    """Make room for the descriptors that the connections need, and warn of what won't work as asked.

    `unbound` tokens let their holders take any name; the development tokens are among them.
    """
    if settings.takes_development_tokens:
        hint = "anyone who can connect is let in under any name; see --tokens"
        note(logging.WARNING, "development_tokens", hint=hint)
    else:
        advise_on_tokens(unbound)
    if settings.unknown_variables:
        note(logging.WARNING, "unknown_variables", names=" ".join(settings.unknown_variables))
    wanted = settings.limits.connections + SPARE_DESCRIPTORS
    limit = raise_descriptor_limit(wanted)
    if limit < wanted:
        note(logging.WARNING, "few_descriptors", limit=limit, wanted=wanted)


def advise_on_tokens(unbound: int) -> None:
    """Warn of `unbound` tokens, if there are any."""
    if unbound:
        hint = "who holds one may take any name that no token is bound to, so a name is only a name"
        note(logging.WARNING, "unbound_tokens", count=unbound, hint=hint)


def raise_descriptor_limit(wanted: int) -> int:
    """Raise the soft limit to `wanted`, or as far as the hard one lets us; the limit that now holds."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted if soft == resource.RLIM_INFINITY else soft
    best = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (best, hard))
    except (OSError, ValueError):  # some systems have a lower limit than they say
        return soft
    return best
