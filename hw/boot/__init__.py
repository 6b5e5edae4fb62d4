"""Boots an image in an emulator, against a real broker and a real centre on this machine, and cuts its power."""
