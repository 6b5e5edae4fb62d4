"""Made by `make deb`."""
