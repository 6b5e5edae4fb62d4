"""A board that sets itself up from its boot partition."""
