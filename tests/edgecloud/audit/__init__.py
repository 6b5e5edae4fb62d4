"""What the log proves."""
