"""The makers of the negative vectors, one for each page of wire 1."""
