"""Tests of what is counted of the link and the disk."""
