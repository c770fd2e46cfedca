"""What an optimizer step of P-DPO costs, beside the authors' scheme and TRL: `make bench-pdpo`.

First loss and gradient are compared with the authors' scheme, in fp32; where the machine would take
bfloat16, also with what that rounds. All variants then run in this process on the same pairs, in
turn, several times; figures are medians. No learning rate is set, so that weights stay as they are
and all do the same work at every turn. Then steps of ours alone, by pairs, prefix and response
length. Writes a section of docs/RESULTS.md and a picture, and prints one JSON line last. Nothing
else should run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import devices
from benchmarks.pdpo_pairs import USERS, Lengths, made_up_pairs
from benchmarks.pdpo_peers import AuthorsScheme
from benchmarks.pdpo_report import write_report
from benchmarks.pdpo_trl import MISSING, TrlStep, installed
from benchmarks.references import base_logps
from trainer.adapter import AttachedAdapter, attached, initial_adapter
from trainer.batching import PairRows
from trainer.config import TrainConfig
from trainer.kernels import kernels
from trainer.language_model import LanguageModel, load_language_model, resolve_device
from trainer.learning import Learner
from trainer.user_models import UserModel, initial_users, users_from_tensors

PAIRS = 48
REPEATS = 4
CONFIG = TrainConfig(
    learning_rate_adapter=0.0, learning_rate_vector=0.0, clip_norm_adapter=float("inf")
)
# The penalty has a kink at the reference's log-prob, where rounding decides between two gradients.
_SMOOTH = replace(CONFIG, dpop_lambda=0.0)
_MATRIX, _MATRIX_ON_GPU = 1024, 8192
_GROWTH: dict[str, tuple[int, ...]] = {
    "pairs": (1, 2, 4, 8),
    "prefix_tokens": (4, 16, 64),
    "response_tokens": (20, 40, 80, 160),
}
# Fewer: there a step takes hardly longer with twice the tokens, and a machine is often lent.
_GROWTH_ON_GPU: dict[str, tuple[int, ...]] = {
    "pairs": (1, 4, 16, 32),
    "prefix_tokens": (4, 64),
    "response_tokens": (20, 160),
}


@dataclass(frozen=True, slots=True)
class Bench:
    """The base model with an adapter that changes something, and where it lies."""

    base: LanguageModel
    path: Path
    adapter: AttachedAdapter

    def users(self, config: TrainConfig) -> UserModel:
        """`USERS` users who know nothing yet."""
        tensors = initial_users(self.base.model, self.base.tokenizer, config).tensors()
        return users_from_tensors("individual", tensors, range(1, USERS + 1), self.base.device)

    def learner(
        self, config: TrainConfig, users: UserModel, references: Mapping[int, float]
    ) -> Learner:
        return Learner(
            self.base.model,
            self.adapter.parameters,
            users=users,
            references=references,
            config=config,
            state={},
        )

    def references(self, pairs: Sequence[PairRows]) -> dict[int, float]:
        """response_id → log π_ref, nats."""
        with self.adapter.disabled():
            return base_logps(self.base.model, pairs, max_tokens=1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--memory", action="store_true", help="one step of ours; its peak memory")
    parser.add_argument("--no-report", action="store_true", help="leave docs as they are")
    parser.add_argument("--dtype", default="auto", choices=["auto", "float32", "bfloat16"])
    devices.add_arguments(parser)
    told = parser.parse_args()
    device = resolve_device(told.device)
    # First: a child's peak begins at what its parent holds when it starts it.
    on_cpu = device.type == "cpu"
    memory = _memory_of_a_child(told.model, told.dtype) if on_cpu and not told.memory else None
    with bench(told.model, device, told.dtype) as world:
        if told.memory:
            print(_peak_of_one_step(world))
            return
        peak = {"peak_rss_mb": memory} if on_cpu else {"peak_memory_mb": _peak_of_one_step(world)}
        figures = equality(world, told.model) | compare(world, told.repeats) | peak
        figures["model"] = devices.called(told.model)
        print(json.dumps(figures), flush=True)
        growth = measure_growth(world)
    if not told.no_report:
        write_report(figures, growth, day=datetime.now(UTC).date())


@contextmanager
def bench(model: str, device: torch.device, dtype: str = "auto") -> Iterator[Bench]:
    """A base model with an adapter whose two factors are both at work."""
    found = devices.found(model)
    base = load_language_model(found.path, found.identity, device=str(device), dtype=dtype)
    noise = torch.Generator().manual_seed(1)
    weights = {
        name: 0.01 * torch.randn(w.shape, generator=noise) if "lora_B" in name else w
        for name, w in initial_adapter(base.model, CONFIG).items()
    }
    with attached(base.model, CONFIG, weights) as adapter:
        yield Bench(base, found.path, adapter)


def equality(world: Bench, model: str) -> dict[str, object]:
    """How far ours is from the authors' scheme in fp32, and both from that where `world` rounds."""
    with bench(model, world.base.device, "float32") as exact:
        ours, authors = _one_step(exact, CONFIG)
        _, smooth = _one_step(exact, _SMOOTH)
    figures: dict[str, object] = {
        "loss_abs_diff": abs(ours[0] - authors[0]),
        "grad_rel_diff": _distance(ours[1], authors[1]),
    }
    if world.base.model.dtype != torch.float32:
        for name, (_, gradient) in zip(("ours", "authors"), _one_step(world, _SMOOTH), strict=True):
            figures[f"grad_rel_rounding_{name}"] = _distance(gradient, smooth[1])
    return figures


def _one_step(world: Bench, config: TrainConfig) -> list[tuple[float, Tensor]]:
    """Loss and gradient on the same few pairs, by ours and by the authors' scheme."""
    batch = made_up_pairs(
        world.base, count=config.batch_pairs, prefix_tokens=config.prefix_tokens, seed=0
    )
    users = world.users(config)
    ours = world.learner(config, users, world.references(batch)).step(batch)["loss"]
    computed = [(ours, _gradient(world.adapter, users))]
    theirs = AuthorsScheme(world.base, world.adapter, users, config).step(batch)
    return [*computed, (theirs, _gradient(world.adapter, users))]


def _distance(gradient: Tensor, wanted: Tensor) -> float:
    return float((gradient - wanted).norm() / wanted.norm())


def compare(world: Bench, repeats: int) -> dict[str, object]:
    """Every variant on the same batches, in turn."""
    pairs = made_up_pairs(world.base, count=PAIRS, prefix_tokens=CONFIG.prefix_tokens, seed=0)
    size = CONFIG.batch_pairs
    batches = [pairs[at : at + size] for at in range(0, size * min(repeats, PAIRS // size), size)]
    references = world.references([p for batch in batches for p in batch])
    users = world.users(CONFIG)
    ours = world.learner(CONFIG, users, references)
    sampled = world.learner(replace(CONFIG, sample_terms=True), users, references)
    authors = AuthorsScheme(world.base, world.adapter, users, CONFIG)
    plain = AuthorsScheme(world.base, world.adapter, users, CONFIG, references)
    with ExitStack() as stack:
        steps: dict[str, Callable[[Sequence[PairRows]], object]] = {
            "ours": ours.step,
            "sampled": sampled.step,
            "authors": authors.step,
            "plain": plain.step,
        }
        if installed():
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            steps["trl"] = TrlStep(world.path, CONFIG, references, folder, world.base).step
        seconds, peaks = _take_turns(steps, batches, world.base)
    flops = {name: _flops(steps[name], batches[0]) for name in ("ours", "authors")}
    median = {name: statistics.median(taken) for name, taken in seconds.items()}

    def ratio(of: str, to: str) -> float | None:
        if of not in seconds:
            return None
        return round(
            statistics.median(a / b for a, b in zip(seconds[of], seconds[to], strict=True)), 2
        )

    peak = statistics.median(peaks)
    dtype_name = str(world.base.model.dtype).removeprefix("torch.")
    return {
        "step_vs_authors_scheme": ratio("authors", "ours"),
        "sampled_step_vs_authors_scheme": ratio("authors", "sampled"),
        "step_vs_trl": ratio("trl", "ours"),
        "step_vs_trl_reason": None if "trl" in steps else MISSING,
        "step_vs_plain_form": ratio("plain", "ours"),
        "matmul_flops_vs_authors_scheme": round(flops["authors"] / flops["ours"], 2),
        "pairs_per_s": round(size / median["ours"], 3),
        "s_per_pair": {name: round(s / size, 3) for name, s in median.items()},
        "fraction_of_matmul_peak": round(flops["ours"] / median["ours"] / peak, 2),
        "matmul_peak_gflops": round(peak / 1e9, 1),
        "repeats": len(batches),
        "batch_pairs": size,
        "threads": torch.get_num_threads(),
        "dtype": dtype_name,
        "kind": devices.kind(world.base.device, dtype_name),
        "machine": devices.machine(world.base.device),
    }


def _take_turns(
    steps: Mapping[str, Callable[[Sequence[PairRows]], object]],
    batches: Sequence[Sequence[PairRows]],
    base: LanguageModel,
) -> tuple[dict[str, list[float]], list[float]]:
    """Seconds by variant, and the matrix peaks between turns."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    peaks = []
    if base.device.type == "cuda":  # kernels are loaded when they are first needed
        for step in steps.values():
            step(batches[0])
    for batch in batches:
        peaks.append(_matmul_peak(base.model.dtype, base.device))
        for name, step in steps.items():
            seconds[name].append(_seconds(step, batch, base.device))
            print(f"{name}: {seconds[name][-1]:.3g} s", file=sys.stderr, flush=True)
    return seconds, peaks


def measure_growth(world: Bench) -> dict[str, list[tuple[int, float]]]:
    """Seconds of one step of ours by one size, two pairs where it is not their number."""
    growth: dict[str, list[tuple[int, float]]] = {}
    device = world.base.device
    for name, sizes in (_GROWTH if device.type == "cpu" else _GROWTH_ON_GPU).items():
        growth[name] = []
        for size in sizes:
            count = size if name == "pairs" else 2
            config = replace(CONFIG, prefix_tokens=size) if name == "prefix_tokens" else CONFIG
            lengths = Lengths(response=(size, size)) if name == "response_tokens" else Lengths()
            pairs = made_up_pairs(
                world.base,
                count=count,
                prefix_tokens=config.prefix_tokens,
                lengths=lengths,
                seed=1,
            )
            step = world.learner(config, world.users(config), world.references(pairs)).step
            taken = min(_seconds(step, pairs, device) for _ in range(2))
            growth[name].append((size, taken))
            print(f"{name} {size}: {taken:.3g} s", file=sys.stderr, flush=True)
    return growth


def _seconds(
    step: Callable[[Sequence[PairRows]], object], pairs: Sequence[PairRows], device: torch.device
) -> float:
    started = devices.now_s(device)
    step(pairs)
    return devices.now_s(device) - started


def _gradient(adapter: AttachedAdapter, users: UserModel) -> Tensor:
    learned = [*adapter.parameters.values(), *users.shared_parameters().values()]
    learned += users.own_parameters().values()
    return torch.cat(
        [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in learned]
    )


def _flops(step: Callable[[Sequence[PairRows]], object], batch: Sequence[PairRows]) -> int:
    """Floating-point operations of the matrix products of one step, all made by torch."""
    compiled = kernels()
    own = set() if compiled is None else set(compiled.quick_types)
    try:
        if compiled is not None:
            compiled.quick_types.clear()
        with FlopCounterMode(display=False) as counter:
            step(batch)
    finally:
        if compiled is not None:
            compiled.quick_types.update(own)
    return int(counter.get_total_flops())


def _matmul_peak(dtype: torch.dtype, device: torch.device) -> float:
    """Operations per second of a plain square product, by torch or by ours, whichever is quicker.

    Each is the median of some.
    """
    size = _MATRIX if device.type == "cpu" else _MATRIX_ON_GPU
    one, other = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    ways: list[Callable[[], object]] = [lambda: torch.mm(one, other)]
    if device.type == "cpu" and (compiled := kernels()) is not None:
        ways.append(lambda: compiled.products([(one, other)]))
    seconds = []
    for way in ways:
        taken = []
        for _ in range(9):
            started = devices.now_s(device)
            way()
            taken.append(devices.now_s(device) - started)
        seconds.append(statistics.median(taken))
    return float(2 * size**3 / min(seconds))


def _peak_of_one_step(world: Bench) -> int:
    pairs = made_up_pairs(
        world.base, count=CONFIG.batch_pairs, prefix_tokens=CONFIG.prefix_tokens, seed=0
    )
    world.learner(CONFIG, world.users(CONFIG), world.references(pairs)).step(pairs)
    if world.base.device.type == "cuda":
        return torch.cuda.max_memory_allocated() >> 20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def _memory_of_a_child(model: str, dtype: str) -> int:
    """Peak memory of a process that takes steps of ours alone on the CPU, in MB."""
    child = [sys.executable, "-m", "benchmarks.pdpo", "--memory"]
    child += ["--device", "cpu", "--model", model, "--dtype", dtype]
    return int(subprocess.run(child, capture_output=True, check=True, text=True).stdout.split()[-1])


if __name__ == "__main__":
    main()
