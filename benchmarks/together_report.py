"""Figures of serving beside training → their section of docs/RESULTS.md and a plot."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot

from benchmarks.sections import put_between

_DOCS = Path(__file__).parent.parent / "docs"
_FIGURE = "figures/together-tokens{}.png"
_LEGEND = (
    "One person asks for pairs and pauses after each as long as it took, so that the engine is at",
    "work half of the time: alone, while a round runs, and while pairs are made ahead.",
    "",
    "- `token_delay_ms_p95`: time between two tokens of a pair while a round runs, 95th",
    "  percentile, less the median without one. The goal is 50. `…_alone_…`: without a round.",
    "- `round_slowdown`: the round's time beside that work, over its time alone. The goal is 1.5.",
    "- `pair_slowdown`: a pair's time while a round runs, over its time alone, medians;",
    "  `pair_slowdown_beside_prefetch`: while three pairs that nobody waits for are being made.",
    "- `round_s` and `pair_s`: alone. A round is its references, two passes, gate and saving.",
)


def write_report(
    figures: Mapping[str, Any], gaps_s: Mapping[str, Sequence[float]], *, day: date
) -> None:
    """Replace the section and the plot of the times between tokens."""
    # On a CPU one section for all processors: what it is about is the cores.
    on_gpu = str(figures["kind"]).startswith("cuda")
    figure = _FIGURE.format("-cuda" if on_gpu else "")
    _plot(gaps_s, _DOCS / figure)
    lines = [
        f"## Serving and training together{' on a GPU' if on_gpu else ''}: `make bench-together`",
        "",
        f"{day}, {figures['machine']}, {os.cpu_count()} cores, {figures['model']}.",
        "",
        "```json",
        json.dumps(dict(figures), indent=1),
        "```",
        "",
        *_LEGEND,
        "",
        f"![Times between two tokens]({figure})",
        "",
    ]
    put_between(_DOCS / "RESULTS.md", "together cuda" if on_gpu else "together", "\n".join(lines))


def _plot(gaps_s: Mapping[str, Sequence[float]], file: Path) -> None:
    figure, axes = pyplot.subplots(figsize=(6, 3.6), layout="constrained")
    for name, gaps in gaps_s.items():
        shares = [(n + 1) / len(gaps) for n in range(len(gaps))]
        axes.plot([1000 * gap for gap in sorted(gaps)], shares, label=name)
    axes.set(xlabel="milliseconds between two tokens", ylabel="share of tokens", xscale="log")
    axes.set_ylim(0, 1.02)
    axes.legend(frameon=False, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=130, metadata={"Software": None})
    pyplot.close(figure)
