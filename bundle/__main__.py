"""The first code that chat.pyz runs: it looks at the interpreter and at nothing else.

1. Everything here must compile on Python 2.7 and on every Python 3: it is what says that those are too old.
2. Whatever needs a newer Python is imported after the look.
"""

import sys

if sys.version_info < (3, 11):
    sys.stderr.write(
        "chat.pyz needs Python 3.11 or newer, and this is Python %d.%d: try python3.11 %s\n"
        % (sys.version_info[0], sys.version_info[1], sys.argv[0])
    )
    sys.exit(2)

import _launch

_launch.launch(sys.argv[0])
