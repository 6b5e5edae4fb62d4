"""The charts and tables of docs/evaluation.md, from measured figures, beside what MMlib published.

MMlib: medians over U3 of its own raw logs (hpides/mmlib, EDBT 2023), outdoor-512, on 2 x Xeon Gold 5220S: another machine than this one.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = DOCS / "evaluation.md"
KEPT = Path(__file__).with_name("paper.json")  # what the page was made of; its grid follows from it
NAMES = {"mobilenet_v2": "MobileNetV2", "resnet18": "ResNet18"}
RELATIONS = {"full": "all weights", "partial": "the last layer"}
# MB stored, seconds to save, seconds to recover the last U3: of the baseline (whole model), and of the better parameter update.
MMLIB: dict[str, dict[str, dict[str, tuple[float, float, float]]]] = {
    "mobilenet_v2": {
        "full": {"whole": (14.3, 0.109, 1.39), "update": (14.3, 0.104, 1.73), "provenance": (72.3, 0.433, 8.00)},
        "partial": {"whole": (14.3, 0.110, 1.38), "update": (5.2, 0.079, 1.66), "provenance": (72.3, 0.413, 8.74)},
    },
    "resnet18": {
        "full": {"whole": (46.9, 0.216, 1.62), "update": (46.9, 0.196, 2.23), "provenance": (72.3, 0.444, 7.67)},
        "partial": {"whole": (46.9, 0.212, 1.61), "update": (2.1, 0.099, 1.95), "provenance": (72.3, 0.496, 7.36)},
    },
}
COLORS = {"snapshot": "#4477aa", "delta": "#228833", "exact": "#ccbb44", "recipe": "#aa3377", "none": "#bbbbbb", "MMlib": "#888888"}
Figures = dict[str, Any]


def write(figures: Figures) -> None:
    """Draw the charts, put the tables between their marks on the page, and keep the figures they were made of."""
    _charts(figures)
    KEPT.write_text(json.dumps({name: value for name, value in figures.items() if name != "grid"}, indent=0) + "\n")
    PAGE.write_text(filled(PAGE.read_text(), figures))


def filled(text: str, figures: Figures) -> str:
    """Return the page with its tables made of these figures."""
    for name, lines in tables(figures).items():
        begin, end = f"<!-- {name}: made by `make paper`; what is written here by hand is lost -->", f"<!-- end of {name} -->"
        if begin not in text or end not in text:
            raise SystemExit(f"docs/evaluation.md has no place for the table {name}")
        before, rest = text.split(begin, 1)
        text = "\n".join([before + begin, *lines, end + rest.split(end, 1)[1]])
    return text


def tables(figures: Figures) -> dict[str, list[str]]:
    """Return each table's lines by its name."""
    return {
        "flow": _flow_table(figures), "fleet": _fleet_table(figures), "policies": _policy_table(figures), "grid": _grid_table(figures),
        "dist": _dist_table(figures), "rates": _rate_table(figures), "floors": _floor_table(figures),
    }  # fmt: skip


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *("| " + " | ".join(row) + " |" for row in rows)]


def _size(count: float) -> str:
    for unit, of in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= of:
            return f"{count / of:.3g} {unit}"
    return f"{count:.0f} B"


def _flow_table(figures: Figures) -> list[str]:
    rows = []
    for run in figures["flows"]:
        updates = [s for s in run["saved"] if s["use"].startswith("U3")]
        theirs = MMLIB[run["net"]][run["relation"]]
        other = theirs["provenance"] if run["kind"] == "recipe" else theirs["update"]
        sent = statistics.median(s["sent"] for s in updates)
        rows.append((
            NAMES[run["net"]], RELATIONS[run["relation"]], run["kind"], _size(sent), f"{other[0]:g} MB", f"{sent / other[0] / 1e6:.4f}",
            f"{statistics.median(s['save_s'] for s in updates):.2f} s", f"{other[1]:.2f} s", _span(updates), f"{other[2]:.2f} s",
            f"{sum(s['exact'] for s in run['saved'])} of {len(run['saved'])}",
        ))  # fmt: skip
    return _table(
        ("net", "trained", "kind", "bytes", "MMlib", "ratio", "save", "MMlib", "recover, first to last", "MMlib, last", "exact"), rows
    )


def _span(updates: list[dict[str, Any]]) -> str:
    times = [s["recover_s"] for s in updates[: len(updates) // 2]]
    return f"{times[0]:.2f} to {times[-1]:.2f} s"


def _fleet_table(figures: Figures) -> list[str]:
    return _table(
        ("kind", "cells", "versions", "bytes of all", "a version", "the same whole", "save, each", "recover, each", "exact"),
        ((f["kind"], f"{f['cells']:,}", f"{f['versions']:,}", _size(f["sent"]), _size(f["sent"] / f["versions"]), _size(f["whole"]),
          f"{1e3 * f['save_s'] / f['versions']:.1f} ms", f"{1e3 * f['recover_s'] / f['exact']:.1f} ms", f"{f['exact']:,}")
         for f in figures["fleet"]),
    )  # fmt: skip


def _policy_table(figures: Figures) -> list[str]:
    return _table(
        ("updates", "policy", "stored", "over the least", "worst, in states", "mean"),
        ((kind, p["policy"], _size(p["stored"]), f"{p['over_least']:.2f}", f"{p['worst_states']:.2f}", f"{p['mean_states']:.2f}")
         for kind, costs in figures["policies"].items() for p in costs),
    )  # fmt: skip


def _rate_table(figures: Figures) -> list[str]:
    return _table(
        ("trained", "rate", "bytes of an exact update", "over MMlib's"),
        ((RELATIONS[r["relation"]], f"{r['rate']:g}", _size(r["sent"]), f"{r['over_mmlib']:.2f}") for r in figures["rates"]),
    )


FLOORS = {
    "sent": "as it is sent: byte planes through lz4",
    "planes": "any coder of single bytes of the planes",
    "parent": "the same, knowing the exponent of the parent's weight",
    "scales": "a coder of whole differences, told the update's scale by row and column as well",
    "factors": "the update foretold as a few outer products, their factors sent, and what is left",
}


def _floor_table(figures: Figures) -> list[str]:
    rows = []
    for one in figures["floors"]:
        moved = MMLIB[one["net"]]["partial"]["update"][0] * 1e6
        rows += [(NAMES[one["net"]], text, _size(one[name]), f"{one[name] / moved:.3f}") for name, text in FLOORS.items()]
    return _table(("net", "the least of an exact update of the last layer", "bytes", "over MMlib's"), rows)


def _dist_table(figures: Figures) -> list[str]:
    if not figures["dist"]:
        return ["Measured with `FULL=1` only."]
    return _table(
        ("nodes", "models", "sent", "stored, both bases included", "save", "recover", "exact"),
        ((n, str(d["models"]), _size(d["sent"]), _size(d["stored"]), f"{d['save_s']:.2f} s", f"{d['recover_s']:.2f} s", str(d["exact"]))
         for n, d in figures["dist"].items()),
    )  # fmt: skip


def _grid_table(figures: Figures) -> list[str]:
    """Count the planner's choices by link, and how often the smallest kind was not the choice."""
    rows = []
    for lossless in (False, True):
        for link in dict.fromkeys(c["link"] for c in figures["grid"]):
            cells = [c for c in figures["grid"] if c["link"] == link and c["lossless"] == lossless]

            update, chosen = "exact" if lossless else "delta", [c["choice"] for c in cells]
            odd = sum(c["choice"] not in ("none", c["smallest"]) for c in cells)
            rows.append((
                "its own weights" if lossless else "the lattice", link, str(len(cells)),
                *(str(chosen.count(kind)) for kind in (update, "recipe", "snapshot", "none")),
                str(sum(c["waits"] for c in cells)), str(odd),
            ))  # fmt: skip
    head = ("the device keeps", "link", "places", "delta or exact", "recipe", "snapshot", "none fits", "of them wait", "not the smallest")
    return _table(head, rows)


def _charts(figures: Figures) -> None:
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    matplotlib.rcParams.update({"svg.hashsalt": "evaluation", "font.size": 8, "figure.facecolor": "white"})
    _bytes_chart(figures, plt)
    _grid_chart(figures, plt)


def _save(figure: Any, plt: Any, name: str) -> None:
    figure.savefig(DOCS / name, format="svg", metadata={"Date": None})
    plt.close(figure)


def _bytes_chart(figures: Figures, plt: Any) -> None:
    """Bytes and seconds to recover of one version, by kind, beside MMlib's."""
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    labels, sizes, times, colors = [], [], [], []
    for net in NAMES:
        for relation in RELATIONS:
            mmlib = MMLIB[net][relation]
            for what, (size, _, recover) in mmlib.items():
                labels.append(f"{NAMES[net]}, {relation}: MMlib {what}")
                sizes.append(size * 1e6)
                times.append(recover)
                colors.append(COLORS["MMlib"])
            for run in (r for r in figures["flows"] if (r["net"], r["relation"]) == (net, relation)):
                updates = [s for s in run["saved"] if s["use"].startswith("U3")]
                labels.append(f"{NAMES[net]}, {relation}: {run['kind']}")
                sizes.append(statistics.median(s["sent"] for s in updates))
                times.append(statistics.median(s["recover_s"] for s in updates))
                colors.append(COLORS[run["kind"]])
    places = range(len(labels))
    for panel, values, title in zip(panels, (sizes, times), ("bytes of a version", "seconds to recover one"), strict=True):
        panel.barh(places, values, color=colors)
        panel.set_xscale("log")
        panel.set_title(title)
        panel.invert_yaxis()
        panel.set_yticks(places, labels if panel is panels[0] else [""] * len(labels), fontsize=6)
    _save(figure, plt, "evaluation-bytes.svg")


def _grid_chart(figures: Figures, plt: Any) -> None:
    """Where each kind is the smallest (the field's colour) and what the planner chose (the mark)."""
    links = list(dict.fromkeys(c["link"] for c in figures["grid"]))
    figure, panels = plt.subplots(2, len(links), figsize=(10, 5.6), layout="constrained", sharey=True)
    for row, lossless in zip(panels, (False, True), strict=True):
        for panel, link in zip(row, links, strict=True):
            _grid_panel(panel, [c for c in figures["grid"] if (c["link"], c["lossless"]) == (link, lossless)])
            panel.set_title(f"{link}{', own weights' if lossless else ''}", fontsize=8)
    kinds = ("delta", "exact", "recipe", "snapshot", "none")
    handles = [plt.Line2D([], [], marker="s", linestyle="", color=COLORS[k], label=k) for k in kinds]
    marks = [plt.Line2D([], [], marker=m, linestyle="", color="black", label=t) for m, t in (("o", "goes at once"), ("$w$", "waits"))]
    figure.legend(handles=[*handles, *marks], loc="outside lower center", ncols=7, frameon=False)
    _save(figure, plt, "evaluation-grid.svg")


def _grid_panel(panel: Any, cells: list[dict[str, Any]]) -> None:
    across = sorted({(c["bits_per_s"], c["rows"]) for c in cells})
    up = sorted({(c["weights"], c["share"]) for c in cells})
    placed = [(across.index((c["bits_per_s"], c["rows"])), up.index((c["weights"], c["share"])), c) for c in cells]
    for kind, color in COLORS.items():
        fields = [(x, y) for x, y, c in placed if c["smallest"] == kind]
        panel.scatter(*zip(*fields, strict=True) if fields else ([], []), marker="s", s=70, color=color, alpha=0.35, linewidths=0)
        for waits, mark in ((False, "o"), (True, "$w$")):
            marks = [(x, y) for x, y, c in placed if c["choice"] == kind and c["waits"] == waits]
            at = zip(*marks, strict=True) if marks else ([], [])
            panel.scatter(*at, marker=mark, s=14, color=color, edgecolors="black", linewidths=0.4)
    panel.set_xlim(-0.5, len(across) - 0.5)
    panel.set_ylim(-0.5, len(up) - 0.5)
    panel.set_xticks(range(len(across)), [f"{_rate(r)}, {n} rows" for r, n in across], rotation=90, fontsize=5)
    panel.set_yticks(range(len(up)), [f"{w / 1e6:g} M, {s}" for w, s in up], fontsize=6)


def _rate(bits: float) -> str:
    return f"{bits / 1e6:g} Mbit/s" if bits >= 1e6 else f"{bits / 1e3:g} kbit/s"
