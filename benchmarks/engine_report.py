"""The engine's figures → their section of docs/RESULTS.md and a plot in docs/figures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot

from benchmarks.sections import put_between

_DOCS = Path(__file__).parent.parent / "docs"
_FIGURE = "figures/engine-batch-{}.png"
_LEGEND = (
    "- `…_vs_generate`: how many times as long `transformers.generate` takes for the same work",
    "  on as many threads, prefill included: two responses of one user, and of eight users with",
    "  vectors of their own in one batch. Greedy without, and drawn with `_sampled`.",
    "- `greedy_tokens_…`: both sides in fp32, where rounding decides nothing; agreeing until the",
    "  first that differs from `generate` of one response alone. `served_tokens_agreeing`: of as",
    "  many, in the type that is served; `generate_agrees_with_itself`: there, the share for",
    "  `generate` of eight in one batch.",
    "  `engine_equals_itself_in_any_company`: a pair alone and beside seven others, every token.",
    "- `fraction_of_bandwidth_ceiling`: steps per second against reading all weights once per",
    "  step, the fastest way found; `fraction_of_matvec_ceiling`: against torch's own product of",
    "  every weight with a vector. On a GPU: reading at the speed of a copy within its memory.",
    "- `captured_vs_eager`: on a GPU, how many times as long a pair takes where steps are not",
    "  captured. `generate` there is as it comes, with its own cache that grows.",
    "- `first_token_ms`: from the call until a pair's first text; `cold_start_s`: a second start",
    "  of the app until it is ready.",
)


def write_report(
    figures: Mapping[str, Any], batches: Sequence[Mapping[str, float]], *, day: date
) -> None:
    """Replace section and plot of this kind of device and dtype."""
    _plot(batches, _DOCS / _figure(figures))
    put_between(
        _DOCS / "RESULTS.md", f"engine {figures['kind']}", section(figures, batches, day=day)
    )


def section(
    figures: Mapping[str, Any], batches: Sequence[Mapping[str, float]], *, day: date
) -> str:
    """Markdown: what was measured, then tokens against batch."""
    lines = [
        f"## The local engine in {figures['kind']}: `make bench-engine`",
        "",
        f"{day}, {figures['machine']}, {figures['model']}; eight users' version.",
        "",
        "```json",
        json.dumps(dict(figures), indent=1),
        "```",
        "",
        *_LEGEND,
        "",
        "| rows | engine, tokens/s | `generate`, tokens/s | ratio |",
        "| ---: | ---: | ---: | ---: |",
    ]
    for at in batches:
        ratio = at["engine"] / at["generate"]
        row = f"| {at['rows']} | {at['engine']} | {at['generate']} | {ratio:.2f} |"
        lines.append(row)
    figure = _figure(figures)
    return "\n".join([*lines, "", f"![Tokens per second against rows]({figure})", ""])


def _figure(figures: Mapping[str, Any]) -> str:
    return _FIGURE.format(figures["kind"].replace(" ", "-"))


def _plot(batches: Sequence[Mapping[str, float]], file: Path) -> None:
    figure, axes = pyplot.subplots(figsize=(6, 3.6), layout="constrained")
    rows = [at["rows"] for at in batches]
    for name, style in (("engine", "o-"), ("generate", "s--")):
        axes.plot(rows, [at[name] for at in batches], style, label=name)
    axes.set(xscale="log", xlabel="rows decoded together", ylabel="tokens per second", ylim=0)
    axes.set_xticks(rows, [str(row) for row in rows])
    axes.minorticks_off()
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=130, metadata={"Software": None})
    pyplot.close(figure)
