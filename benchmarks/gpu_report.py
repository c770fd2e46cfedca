"""The section of docs/RESULTS.md that `make bench-gpu` writes, beside those of its parts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from benchmarks import devices
from benchmarks.sections import put_between

MARK = "gpu"
_LIBRARIES = ("torch", "transformers")
_LEGEND = """\
- `engine`, `pdpo`, `together`: as `make bench-engine`, `make bench-pdpo` and `make bench-together`
  say them; a part that was not cut off has a section and a picture of its own.
- `failed`: why a part did not come to its end; figures that it had printed by then stand beside it.
- `checks`, from `benchmarks/gpu_checks.py`. `ms`: the model's part of a decoding step of so many
  rows, as it comes and captured, and draws. `attach_…`, `load_…`: a process beside this one,
  attached to the same weights or with its own: what it allocates, what the card has less, and
  whether its logits are the same bits.
"""


def write_report(
    figures: Mapping[str, Any], document: Path, device: torch.device, *, day: date
) -> None:
    """Replace the section."""
    libraries = ", ".join(f"{name} {version(name)}" for name in _LIBRARIES)
    on = f"{devices.machine(device)}, {libraries}"
    put_between(document, MARK, section(figures, on, day=day))


def section(figures: Mapping[str, Any], on: str, *, day: date) -> str:
    """Markdown: when and on what, all figures, and what they mean."""
    lines = ["## On a GPU: `make bench-gpu`", "", f"{day}, {on}.", "", "```json"]
    return "\n".join([*lines, json.dumps(dict(figures), indent=1), "```", "", _LEGEND])
