"""Made by `make wheels`."""
