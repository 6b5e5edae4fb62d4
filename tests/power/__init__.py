"""Power cuts at the level of blocks: what the disks of a board and of a centre may hold then, and whether both go on from it."""
