"""Colour on a terminal: words that stand alone in a cell, and heads of tables. What others wrote has lost its escapes before."""

from __future__ import annotations

import os
import sys

from edgecommon.tables import terminal_width

GOOD = "verified|ok|on line|admitted|open|good|listed"
BAD = r"refused|lost|revoked|rejected|withdrawn|expired|FIX|NOT EXACT|CHANGED"
WAITS = "stored|pending|off line|due|preauthorised|used up|stale"
LINES = 2_000  # of one answer, above which none is painted: it would take longer than to find the answer


def painted(text: str) -> str:
    """Return a text with colours where standard output is a terminal that wants them; NO_COLOR and a dumb one want none."""
    if terminal_width() is None or os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") == "dumb" or text.count("\n") > LINES:
        return text
    from rich.console import Console
    from rich.text import Text

    drawn = Text(text)
    drawn.highlight_regex(r"(?m)^.*\n(?=[─ ]*─)", "bold")
    drawn.highlight_regex(r"(?m)^[─ ]*─$", "dim")
    for words, style in ((GOOD, "green"), (BAD, "bold red"), (WAITS, "yellow")):
        drawn.highlight_regex(rf"(?m)(?:^|(?<=  ))(?:{words})(?=  |$)", style)
    console = Console(file=sys.stdout, force_terminal=True, soft_wrap=True, highlight=False)
    with console.capture() as capture:
        console.print(drawn, end="")
    return capture.get()
