"""The first code that chat.pyz runs: it looks at the interpreter, and has the signals wait.

1. Everything here must compile on Python 2.7 and on every Python 3: it is what says that those are too old.
2. Whatever needs a newer Python is imported after the look.
3. SIGTERM, SIGINT and SIGHUP are blocked until the program is there that knows what they mean for it.
"""

import sys

if sys.version_info < (3, 11):
    sys.stderr.write(
        "chat.pyz needs Python 3.11 or newer, and this is Python %d.%d: try python3.11 %s\n"
        % (sys.version_info[0], sys.version_info[1], sys.argv[0])
    )
    sys.exit(2)

# What `signal` is made of: that one takes longer to import than all that came before.
import _signal  # type: ignore[import-not-found]

_signal.pthread_sigmask(_signal.SIG_BLOCK, (_signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP))

import _launch  # noqa: E402

_launch.launch(sys.argv[0])
