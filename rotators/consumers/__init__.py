"""Whoever uses a secret and must be given the new one: one file each."""
