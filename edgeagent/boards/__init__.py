"""Profiles of boards: what each has, how it is recognised, what the agent may take there. Knows no state folder and no model."""

from __future__ import annotations

from .choosing import ChosenBoard, choose
from .comparing import BoardAsIs, ComparedFact, compare
from .drop_in import PLACE, unit_drop_in
from .reading import BoardFigure, BoardProfile, BoardSystem, names, parsed, profile
from .recognising import HereBoard, Recognised, detect, look

__all__ = [
    "PLACE", "BoardAsIs", "BoardFigure", "BoardProfile", "BoardSystem", "ChosenBoard", "ComparedFact", "HereBoard", "Recognised", "choose",
    "compare", "detect", "look", "names", "parsed", "profile", "unit_drop_in",
]  # fmt: skip
