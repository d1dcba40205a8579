"""Tasks: the broker and the tasks of one connection."""
