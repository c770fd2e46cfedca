"""The section of docs/RESULTS.md and the picture that `make bench-pdpo` writes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot

from benchmarks.sections import put_between

_DOCUMENT = Path("docs/RESULTS.md")
_PICTURES = Path("docs/figures")
_TITLES = {
    "pairs": "pairs in a step",
    "prefix_tokens": "prefix tokens (2 pairs)",
    "response_tokens": "tokens a response (2 pairs)",
}
_NOTES = """\
- `step_vs_…`: their seconds divided by ours, the median of the ratios of each turn. Four pairs a
  step, prompts of 40 to 60 tokens, responses of 60 to 72, four users in turn, 16 prefix tokens,
  LoRA r = 8.
- authors' scheme: the published code's twelve passes over padded rows, all logits of all positions,
  re-created on our model, users and loss (`benchmarks/pdpo_peers.py`). The goal is 4.
- `sampled_…`: one of the two terms of each pair, drawn (`sample_terms`). The goal is 7.
- `step_vs_trl`: TRL's `DPOTrainer` with reference log-probs known beforehand and no checkpointing.
  It trains one term, ours two. The goal is 2.
- `step_vs_plain_form`: chosen and rejected as two padded rows, reference looked up, all logits.
- `matmul_flops_vs_authors_scheme`: operations in the matrix products of both (their attention not
  counted): the ratio to expect where the processor does nothing but multiply.
- `loss_abs_diff`, `grad_rel_diff`: ours against the authors' scheme, both in fp32.
  `grad_rel_rounding_…`: each in bfloat16 against that, where the machine takes bfloat16, without
  the penalty, which has a kink.
- `fraction_of_matmul_peak`: operations per second of our step's matrix products, over those of a
  product of 1024 × 1024 (on a GPU 8192 × 8192), torch's or ours, whichever is quicker then.
- `peak_rss_mb`, on a GPU `peak_memory_mb`: of steps of ours alone, base model included.
"""


def write_report(
    figures: Mapping[str, object],
    growth: Mapping[str, Sequence[tuple[int, float]]],
    *,
    day: date,
) -> None:
    """Replace picture and section of this kind of device and dtype."""
    kind = str(figures["kind"])
    picture = _PICTURES / f"pdpo-growth-{kind.replace(' ', '-')}.png"
    _draw(growth, picture)
    lines = [
        f"## The step in {kind}: `make bench-pdpo`",
        "",
        f"{day}, {figures['machine']}, {figures['threads']} thread(s), {figures['model']}.",
        "",
        "```json",
        json.dumps(figures, indent=1),
        "```",
        "",
        _NOTES,
        f"![Seconds of a step by size](figures/{picture.name})",
        "",
        "| | seconds of one step of ours |",
        "| --- | --- |",
    ]
    for name, points in growth.items():
        cells = " · ".join(f"{size}: {seconds:.2g}" for size, seconds in points)
        lines.append(f"| {_TITLES[name]} | {cells} |")
    put_between(_DOCUMENT, f"pdpo {kind}", "\n".join(lines))


def _draw(growth: Mapping[str, Sequence[tuple[int, float]]], picture: Path) -> None:
    figure, axes = pyplot.subplots(1, len(growth), figsize=(10, 3), layout="constrained")
    for axis, (name, points) in zip(axes, growth.items(), strict=True):
        axis.plot([size for size, _ in points], [seconds for _, seconds in points], marker="o")
        axis.set_xlabel(_TITLES[name])
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("seconds of a step")
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=110)
    pyplot.close(figure)
