"""Made by `make image`."""
