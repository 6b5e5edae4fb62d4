"""Wheels for boards and their centre: cross-built, held to their tags, run on Debian's Python of each processor. Made by `make wheels`."""
