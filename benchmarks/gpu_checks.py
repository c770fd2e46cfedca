"""What only a GPU can show, and no benchmark measures: equality in fp32, and one copy of weights.

`python -m benchmarks.gpu_checks` prints one JSON line. Greedy tokens of the engine, whose steps are
captured, against those of `transformers.generate`; then a second process that attaches the base
weights, and one that loads its own: what each allocates, and what the card has left.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from backend.base_model import BaseModel
from benchmarks import devices
from benchmarks.engine import Sides, equality
from trainer.language_model import LanguageModel, load_language_model, resolve_device
from trainer.sharing import SharedModel, attach

_IDS = (5, 6, 7, 8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    devices.add_arguments(parser)
    parser.add_argument("--attach", action="store_true", help="be the process that attaches")
    parser.add_argument("--load", action="store_true", help="be the one that loads its own")
    parser.add_argument("--identity", default="", help="of the model, which is then a folder")
    told = parser.parse_args()
    if told.attach or told.load:
        be_another_process(told)
        return
    model = devices.found(told.model)
    device = resolve_device(told.device)
    figures = greedy_in_fp32(model, told.device) | sharing(model, device)
    print(json.dumps(figures))


def greedy_in_fp32(model: BaseModel, device: str) -> dict[str, Any]:
    """Tokens of a pair alone and of eight users' pairs, as the engine's benchmark compares them."""
    told = argparse.Namespace(threads=1, dtype="float32", device=device)
    with tempfile.TemporaryDirectory(prefix="attune-bench-") as folder, ExitStack() as stack:
        found = equality(Sides(model, Path(folder) / "version", told, stack))
    return {f"fp32_{name}": value for name, value in found.items()}


def sharing(model: BaseModel, device: torch.device) -> dict[str, Any]:
    """Memory of a process beside this one, by how it comes to the base weights."""
    base = load_language_model(model.path, model.identity, device=str(device))
    size = sum(p.numel() * p.element_size() for p in base.model.parameters())
    wanted = logits(base)
    figures: dict[str, Any] = {"weights_mb": size >> 20}
    shared = SharedModel(base.model)
    for way in ("attach", "load"):
        before = _used_bytes(device)
        with subprocess.Popen(
            [
                *(sys.executable, "-m", "benchmarks.gpu_checks", f"--{way}"),
                *("--model", str(model.path), "--identity", model.identity),
                *("--device", str(device)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as child:
            assert child.stdin is not None
            assert child.stdout is not None
            child.stdin.write((shared.handles() or "") + "\n")
            child.stdin.flush()
            answer = json.loads(child.stdout.readline() or "{}")
            figures[f"{way}_device_mb"] = (_used_bytes(device) - before) >> 20
            child.stdin.close()  # ends it
        figures[f"{way}_allocated_mb"] = answer.get("allocated_mb")
        figures[f"{way}_logits_equal"] = answer.get("logits") == wanted
    return figures


def be_another_process(told: argparse.Namespace) -> None:
    """Take a line of handles, compute, say what was allocated, and stay until the input ends."""
    handles = sys.stdin.readline().strip()
    if told.attach:
        base = attach(Path(told.model), told.identity, handles)
    else:
        base = load_language_model(Path(told.model), told.identity, device=told.device)
    allocated = torch.cuda.memory_allocated() if base.device.type == "cuda" else 0
    print(json.dumps({"allocated_mb": allocated >> 20, "logits": logits(base)}), flush=True)
    sys.stdin.read()


@torch.inference_mode()
def logits(base: LanguageModel) -> list[float]:
    """Of the token that follows a few others."""
    ids = torch.tensor([_IDS], device=base.device)
    values: list[float] = base.model(ids).logits[0, -1].float().tolist()
    return values


def _used_bytes(device: torch.device) -> int:
    """On the whole card, whoever uses it."""
    if device.type != "cuda":
        return 0
    free, total = torch.cuda.mem_get_info(device)
    return total - free


if __name__ == "__main__":
    main()
