"""The local engine against `transformers.generate`, side by side: `make bench-engine`.

Both serve one version: a pair for one user, and pairs of eight users with vectors of their own, on
as many threads. Ratios are medians of repeats that take turns. Greedy tokens are compared first.
Then the reading of the weights, which nothing can beat; tokens against batch, plotted into
docs/figures and tabled in docs/RESULTS.md; on a CPU the app's second start, on a GPU the same with
steps that are not captured. Prints one JSON line last. Nothing else should run on the machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from backend.settings import load_settings
from benchmarks import devices
from benchmarks.engine_equality import agreement, equality
from benchmarks.engine_report import write_report
from benchmarks.engine_world import BATCHES, NEW_TOKENS, USERS, Sides, requests
from dev.running import RunningApp
from trainer.language_model import resolve_device

REPEATS = 5
BATCH_TOKENS = 16
BATCH_REPEATS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--threads", type=int, default=load_settings({}).resolved_engine_threads)
    parser.add_argument("--dtype", default="auto", choices=["auto", "float32", "bfloat16"])
    parser.add_argument("--no-report", action="store_true", help="leave docs as they are")
    devices.add_arguments(parser)
    told = parser.parse_args()
    torch.set_num_threads(told.threads)
    model = devices.found(told.model)
    device = resolve_device(told.device)
    with tempfile.TemporaryDirectory(prefix="attune-bench-") as folder, ExitStack() as stack:
        equal = equality(model, told)
        sides = Sides(model, Path(folder) / "version", told, stack)
        dtype = str(sides.weights[0].dtype).removeprefix("torch.")
        figures: dict[str, Any] = {
            "kind": devices.kind(device, dtype),
            "machine": devices.machine(device),
            "model": devices.called(told.model),
            "threads": told.threads,
            "dtype": dtype,
            "new_tokens": NEW_TOKENS,
        }
        figures |= equal | agreement(sides)
        figures |= pairs(sides, told.repeats)
        figures |= ceiling(sides, told.repeats)
        if device.type == "cuda":
            figures |= uncaptured(sides, told.repeats)
        batches = against_batch(sides, min(told.repeats, BATCH_REPEATS))
        stack.close()
        if device.type == "cpu":
            figures["cold_start_s"] = round(second_start_s(Path(folder) / "data"), 2)
    print(json.dumps(figures | {"tokens_per_s_by_rows": batches}), flush=True)
    if not told.no_report:
        write_report(figures, batches, day=datetime.now(UTC).date())


def pairs(sides: Sides, repeats: int) -> dict[str, Any]:
    """One pair and eight, engine and `generate` in turn. Greedy: without either's sampler."""
    figures: dict[str, Any] = {}
    for name, users, sampled, times in (
        ("pair", USERS[:1], False, repeats),
        ("pair_sampled", USERS[:1], True, fewer(repeats)),
        ("eight_pairs", USERS, False, fewer(repeats)),
    ):
        ours, theirs = compare(sides, users, 2, NEW_TOKENS, times, sampled=sampled)
        figures[f"{name}_vs_generate"] = round(theirs / ours, 2)
        figures[f"{name}_s"] = round(ours, 3)
        figures[f"{name}_generate_s"] = round(theirs, 3)
    figures["first_token_ms"] = round(
        1000 * statistics.median(sides.first_text_s() for _ in range(repeats))
    )
    return figures


def ceiling(sides: Sides, repeats: int) -> dict[str, Any]:
    """Steps per second at one pair, against reading every weight once per step."""
    device = sides.weights[0].device
    if device.type == "cuda":
        return ceiling_on_gpu(sides, repeats, devices.copy_bytes_per_s(device))
    return ceiling_on_cpu(sides, repeats)


def ceiling_on_gpu(sides: Sides, repeats: int, bytes_per_s: float) -> dict[str, Any]:
    """The reading is at the speed of a copy within the GPU's memory.

    Its peak is that of pairs of the engine, with the weights of `generate` beside it.
    """
    device = sides.weights[0].device
    devices.begin_peak(device)  # without the copy's buffers and the models in fp32
    whole, start = alternating([step_of(sides, NEW_TOKENS), step_of(sides, 1)], repeats)
    size = sum(weight.numel() * weight.element_size() for weight in sides.weights)
    step_s = (whole - start) / (NEW_TOKENS - 1)
    return {
        "fraction_of_bandwidth_ceiling": round(size / bytes_per_s / step_s, 2),
        "step_ms": round(1000 * step_s, 2),
        "bandwidth_gb_s": round(bytes_per_s / 1e9, 1),
        "peak_memory_mb": torch.cuda.max_memory_allocated(device) >> 20,
    }


def uncaptured(sides: Sides, repeats: int) -> dict[str, Any]:
    """What capturing steps gives at one pair."""
    plain = sides.engine(capture=False)

    def pair_of_plain() -> object:
        return plain.generate(requests(USERS[0], 2, NEW_TOKENS, sampled=False)).result()

    captured, eager = alternating([step_of(sides, NEW_TOKENS), pair_of_plain], fewer(repeats))
    return {"captured_vs_eager": round(eager / captured, 2), "pair_eager_s": round(eager, 3)}


def step_of(sides: Sides, tokens: int) -> Callable[[], object]:
    """One pair of so many tokens."""
    return lambda: sides.generate(USERS[:1], 2, tokens, sampled=False)


def ceiling_on_cpu(sides: Sides, repeats: int) -> dict[str, Any]:
    """The reading is the faster of a sum over the weights and a product with a vector."""
    vectors = {w.shape[1]: torch.ones(w.shape[1], dtype=w.dtype) for w in sides.weights}
    # The same bytes as fp32, whatever they mean: sums of bfloat16 are slower than their reading.
    read = [weight.detach().view(torch.float32) for weight in sides.weights]

    @torch.inference_mode()
    def sums() -> None:
        for weight in read:
            weight.sum()

    @torch.inference_mode()
    def products() -> None:
        for weight in sides.weights:
            torch.mv(weight, vectors[weight.shape[1]])

    whole, start, summing, multiplying = alternating(
        [step_of(sides, NEW_TOKENS), step_of(sides, 1), sums, products], repeats
    )
    size = sum(weight.numel() * weight.element_size() for weight in sides.weights)
    step_s = (whole - start) / (NEW_TOKENS - 1)
    return {
        "fraction_of_bandwidth_ceiling": round(min(summing, multiplying) / step_s, 2),
        "fraction_of_matvec_ceiling": round(multiplying / step_s, 2),
        "step_ms": round(1000 * step_s, 1),
        "bandwidth_gb_s": round(size / min(summing, multiplying) / 1e9, 1),
    }


def against_batch(sides: Sides, repeats: int) -> list[dict[str, float]]:
    """Tokens per second of either side by rows: pairs of so many users, or one response."""
    found = []
    for rows in BATCHES:
        users, each = USERS[: max(1, rows // 2)], min(rows, 2)
        ours, theirs = compare(sides, users, each, BATCH_TOKENS, repeats, sampled=False)
        tokens = rows * BATCH_TOKENS
        found.append(
            {
                "rows": rows,
                "engine": round(tokens / ours, 1),
                "generate": round(tokens / theirs, 1),
            }
        )
    return found


def fewer(repeats: int) -> int:
    """Repeats of what takes long."""
    return (repeats + 1) // 2


def compare(
    sides: Sides, users: Sequence[int], rows: int, tokens: int, repeats: int, *, sampled: bool
) -> list[float]:
    """Median seconds of the engine and of `generate` for the same work, in turn."""
    return alternating(
        [
            lambda: sides.generate(users, rows, tokens, sampled=sampled),
            lambda: sides.peer.generate(users, rows, tokens, sampled=sampled),
        ],
        repeats,
    )


def alternating(works: Sequence[Callable[[], object]], repeats: int) -> list[float]:
    """Median seconds of each, run in turn so that a slow minute slows all; the first is warm-up."""
    taken: list[list[float]] = [[] for _ in works]
    for turn in range(repeats + 1):
        for work, seconds in zip(works, taken, strict=True):
            started = time.perf_counter()
            work()
            if turn:
                seconds.append(time.perf_counter() - started)
    medians = [statistics.median(seconds) for seconds in taken]
    print(" ".join(f"{seconds:.3f}" for seconds in medians), file=sys.stderr)
    return medians


def second_start_s(data: Path) -> float:
    """From the start of the process until the model is live, on a folder that has been used."""
    seconds = 0.0
    for _ in range(2):
        started = time.perf_counter()
        with RunningApp(data) as app:
            app.wait_ready()
            seconds = time.perf_counter() - started
    return seconds


if __name__ == "__main__":
    main()
