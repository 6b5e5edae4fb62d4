"""An independent reader of the wire format, wire 1, written from its pages alone."""
