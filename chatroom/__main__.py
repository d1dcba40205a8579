"""`python -m chatroom`, and what the packaged file runs."""

import sys

from chatroom.cli import main

sys.exit(main())
