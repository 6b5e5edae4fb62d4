"""Tests of what firmware teams flash."""
