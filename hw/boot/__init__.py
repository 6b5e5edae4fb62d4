"""Made by `make boot`."""
