"""Write docs/cli.md from the parsers of both commands, and from what some of them show; `--check` says whether it is current.

It reads the parsers, not their formatted help: that one differs between releases of Python.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

PAGE = Path(__file__).resolve().parent / "cli.md"
ROOT = PAGE.parents[1]
HEAD = """\
# Commands

Made from the commands' own `--help`, and from what they show, by `make docs`; not written by hand.

Results go to standard output, everything else to standard error. With `--json` a command prints one JSON document, and an
error is one JSON object on standard error: `error`, `code`, `message`, `hint`. Exit codes are those of [errors](errors.md); 2 is
a command line that can't be read. `DEVICE[/MODEL]@VERSION` names a model: `pi-7@12`, `pi-7/doorbell@latest`, `pi-7@base`.

A command that lacks every word it needs is answered by its help, and ends with 2. So does one with an option that would do nothing.
`--version` is understood everywhere.

Lists begin with the newest. On a terminal they are cut to 50 rows, which `-n` changes (`-n 0`: all), and to as many columns as fit;
names, fingerprints and digests stay whole, and what is left out is said. In a pipe, or with `--json`, nothing is cut and nothing is
coloured. `COLUMNS` says another width, `NO_COLOR` that no colours are wanted.

`edgecloud devices --stale 24h` is for scripts and timers: it lists the admitted devices of which nothing came for so long, and ends
with 1 when there are any, with 0 when there are none.
"""
SCREENS = """\
## On a terminal

The ten most used commands, as they look on a terminal of 80 columns; without the colours.
"""


def main() -> int:
    page = render()
    if "--check" in sys.argv[1:]:
        return int(PAGE.read_text() != page)
    PAGE.write_text(page)
    return 0


def render() -> str:
    """Return the whole page."""
    import edgeagent.cli
    import edgecloud.cli

    out = [HEAD]
    for parser in (edgeagent.cli.parser(), edgecloud.cli.parser()):
        for one in leaves(parser):
            out.append(describe(one, level=2 if one is parser else 3))
    return "\n".join([*out, SCREENS, screens()]).rstrip() + "\n"


def screens() -> str:
    """Return what the commands show, of a registry and a device that are made for it."""
    sys.path[:0] = [str(ROOT), str(ROOT / "cloud")]
    from tests.house.screens import page

    return page()


def leaves(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Yield the parser itself, then its commands, in the order in which they were added."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in dict.fromkeys(action.choices.values()):
                yield from leaves(child)


def describe(parser: argparse.ArgumentParser, *, level: int) -> str:
    """Return one command as Markdown: what it does, how it is called, its arguments, its examples."""
    parts = [f"{'#' * level} {parser.prog}\n"]
    if parser.description:
        parts.append(f"{parser.description.strip()}\n")
    rows = [row(parser, action) for action in parser._actions if action.help is not argparse.SUPPRESS and action.dest != "help"]
    if rows:
        parts.append("\n".join(["| argument | |", "|---|---|", *rows]) + "\n")
    if parser.epilog:
        parts.append(f"```\n{parser.epilog.strip()}\n```\n")
    return "\n".join(parts)


def row(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    """Return the table row of one argument."""
    if isinstance(action, argparse._SubParsersAction):
        return f"| `COMMAND` | {', '.join(dict.fromkeys(action.choices))} |"
    value = value_of(action)
    names = [f"{name} {value}".strip() for name in action.option_strings] or [value]
    # argparse's own words for --version are not the same in every release of Python.
    text = "print the release" if action.dest == "version" else " ".join((action.help or "").split())
    if "%(" in text:
        text = text % {**vars(action), "prog": parser.prog}
    cells = (", ".join(f"`{name}`" for name in names), text.replace("%%", "%"))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def value_of(action: argparse.Action) -> str:
    """Return how the argument's value is called, empty where it takes none."""
    if action.nargs == 0:
        return ""
    if isinstance(action.metavar, str):
        name = action.metavar
    elif action.choices is not None:
        name = "{" + ",".join(map(str, action.choices)) + "}"
    else:
        name = action.dest.upper()
    return {"?": f"[{name}]", "*": f"[{name} ...]", "+": f"{name} [{name} ...]"}.get(str(action.nargs), name)


if __name__ == "__main__":
    sys.exit(main())
