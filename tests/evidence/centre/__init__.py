"""What the issue of the centre promises, a module for each part; each has `measure(full)` and runs alone."""
