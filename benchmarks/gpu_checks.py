"""What only a GPU can show, and no benchmark measures: what a step is made of, one copy of weights.

`python -m benchmarks.gpu_checks` prints one JSON line. Of a step: model, captured and not, and
draws. Then a second process that attaches the base weights, and one that loads its own: what each
allocates, and what the card has left.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from backend.base_model import BaseModel
from backend.engines.captured import capture_on
from backend.engines.static_batch import Rooms, StaticBatch
from benchmarks import devices
from trainer.decoding import Batch, DecodingBatch
from trainer.language_model import LanguageModel, load_language_model, resolve_device
from trainer.sampling import RowSampler, draw
from trainer.sharing import SharedModel, attach

_IDS = (5, 6, 7, 8)
_DRAWN = 8  # rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    devices.add_arguments(parser)
    parser.add_argument("--attach", action="store_true", help="be the process that attaches")
    parser.add_argument("--load", action="store_true", help="be the one that loads its own")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--identity", default="", help="of the model, which is then a folder")
    told = parser.parse_args()
    if told.attach or told.load:
        be_another_process(told)
        return
    model = devices.found(told.model)
    device = resolve_device(told.device)
    base = load_language_model(model.path, model.identity, device=str(device))
    print(json.dumps({"ms": milliseconds(base)} | sharing(base, model)))


@torch.inference_mode()
def milliseconds(base: LanguageModel) -> dict[str, float]:
    """Medians: the model's part of a step by rows, and the draws of eight rows."""
    model, device = base.model, base.device
    prompt = model.get_input_embeddings()(torch.arange(60, 120, device=device))
    found = {}
    for rows in (1, 16, _DRAWN):
        tokens = torch.arange(rows) + 50
        kinds: dict[str, Batch] = {"as_it_comes": DecodingBatch(model)}
        if (capture := capture_on(device)) is not None:
            kinds["captured"] = StaticBatch(Rooms(model, capture), frozenset())
        for name, batch in kinds.items():
            batch.join([prompt], [rows])
            found[f"step_{name}_{rows}"] = _median_ms(partial(batch.advance, tokens), device)
            own = batch.logits
    vocabulary = model.config.get_text_config().vocab_size
    # Of noise the nucleus is a thousand tokens, more than a first transfer brings over.
    noise = 3 * torch.randn(_DRAWN, vocabulary, device=device)
    for name, logits, temperature in (
        ("greedy", own, 0.0),
        ("sampled", own, 0.8),
        ("sampled_from_noise", noise, 0.8),
    ):
        rows_of = [RowSampler(temperature=temperature, top_p=0.95, seed=s) for s in range(_DRAWN)]
        found[f"draw_{name}_{_DRAWN}"] = _median_ms(
            partial(draw, logits, rows_of), device, partial(_prepare, rows_of, vocabulary)
        )
    numbers = partial(torch.rand, vocabulary, generator=torch.Generator())
    found["random_numbers_of_a_row"] = _median_ms(numbers, device)
    return found


def _prepare(samplers: Sequence[RowSampler], vocabulary: int) -> None:
    """What the engine does while the GPU is at work."""
    for sampler in samplers:
        sampler.prepare(vocabulary)


def _median_ms(
    work: Callable[[], object], device: torch.device, before: Callable[[], object] | None = None
) -> float:
    taken = []
    for _ in range(23):
        if before is not None:
            before()
        started = devices.now_s(device)
        work()
        taken.append(devices.now_s(device) - started)
    return round(1000 * statistics.median(taken[3:]), 3)


def sharing(base: LanguageModel, model: BaseModel) -> dict[str, Any]:
    """Memory of a process beside this one, by how it comes to the base weights."""
    device, dtype = base.device, str(base.model.dtype).removeprefix("torch.")
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
                *("--device", str(device), "--dtype", dtype),
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
        base = load_language_model(
            Path(told.model), told.identity, device=told.device, dtype=told.dtype
        )
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
