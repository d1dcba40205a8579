"""Auth: who a token stands for, and what it allows."""
