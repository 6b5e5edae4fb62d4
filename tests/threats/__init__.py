"""The threat model as a table that runs: each row names the tests that show it."""
