"""What the project promises, measured: `make evidence TOPIC=name` writes build/evidence/name.json. Pages quote these figures."""
