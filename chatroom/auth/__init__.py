"""Auth: the identities that tokens prove, and the rights that they give."""
