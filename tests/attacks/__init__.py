"""Attacks that were thought out without a look at the other tests: each one fails, by name, and leaves everything as it was."""
