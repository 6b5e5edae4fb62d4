"""How much a board writes to its flash: a day of work on a real ext4 file system, every block that its disk is written counted."""
