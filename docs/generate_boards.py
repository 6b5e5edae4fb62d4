"""Write the tables of docs/boards.md from the profiles of boards; `--check` says whether they are current."""

from __future__ import annotations

import sys
from pathlib import Path

PAGE = Path(__file__).resolve().parent / "boards.md"
BEGIN, END = "<!-- made from the profiles by make docs -->\n", "<!-- end of what is made -->\n"


def main() -> int:
    """Write the tables, or compare them; return the exit code."""
    sys.path.insert(0, str(PAGE.parents[1]))
    text = PAGE.read_text()
    before, _, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        print(f"{PAGE} has no place for the tables, between {BEGIN.strip()} and {END.strip()}", file=sys.stderr)
        return 1
    made = f"{before}{BEGIN}\n{tables()}\n{END}{after}"
    if "--check" in sys.argv[1:]:
        return 0 if made == text else 1
    PAGE.write_text(made)
    return 0


def tables() -> str:
    """Return the tables as Markdown: what each board has and may take, and what each figure comes from."""
    from edgeagent import boards

    profiles = [boards.profile(name) for name in boards.names()]
    out = ["| profile | board | arch | memory | `max_ram` | `max_celsius` | flash a day | `MemoryMax` | link |", "|" + "---|" * 9]
    for p in profiles:
        said = {key: figure.value for key, figure in p.settings.items()}
        cells = (
            f"`{p.name}`", p.title, ", ".join(p.arches), f"{p.ram_mib.value} MiB", said["budget.max_ram"], said["budget.max_celsius"],
            said["budget.flash_bytes_a_day"], p.unit["MemoryMax"].value, said["link.profile"],
        )  # fmt: skip
        out.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    out += ["", "| figure | boards | comes from |", "|---|---|---|"]
    sources: dict[tuple[str, str], list[str]] = {}
    for p in profiles:
        figures = {"cores": p.cores, "memory": p.ram_mib, "storage": p.storage, **p.settings, **p.unit}
        for key, figure in figures.items():
            sources.setdefault((key, figure.source), []).append(p.name)
    for (key, source), names in sorted(sources.items()):
        every = "all" if len(names) == len(profiles) else ", ".join(f"`{name}`" for name in names)
        out.append(f"| {f'`{key}`' if '.' in key or key[0].isupper() else key} | {every} | {source} |")
    return "\n".join(out) + "\n"


if __name__ == "__main__":
    sys.exit(main())
