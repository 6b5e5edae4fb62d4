"""Proofs, what they are made of and how they are attacked; samples and repairs."""
