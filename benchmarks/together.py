"""Serving and training on one machine: what they cost each other; `make bench-together`.

An engine and a trainer process as the app starts them. Pairs are asked for with a pause after each
as long as the pair took, so that the machine is half busy: first alone, then beside pairs made
ahead, then while a round runs. The round is also run alone. Writes a section of docs/RESULTS.md and
a plot, and prints one JSON line last. Nothing else should run on the machine.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backend.engines.base import Engine, Priority, VersionRef
from backend.engines.local import LocalEngine
from backend.local_model import trainer_arguments
from backend.settings import load_settings
from backend.trainer_process import TrainerProcess
from benchmarks import devices
from benchmarks.engine_world import USERS, endless, messages, requests, write_version
from benchmarks.times import percentile
from benchmarks.together_report import write_report
from trainer.config import TrainConfig
from trainer.language_model import load_language_model
from trainer.sharing import SharedModel, on_one_gpu
from trainer.types import PreferencePair, ResponseTokens, RoundRequest

if TYPE_CHECKING:  # a protocol, in a module that needs a database
    from backend.training import Trainer

NEW_TOKENS = 64
ROUND_PAIRS = 8
PAIRS_ALONE = 8
PAIRS_BESIDE_PREFETCH = 4
PREFETCHED = 3
_ENDLESS_TOKENS = 4000
ROUND_S = 3600.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--round-pairs", type=int, default=ROUND_PAIRS)
    parser.add_argument("--new-tokens", type=int, default=NEW_TOKENS)
    settings = load_settings({})
    parser.add_argument("--nice", type=int, default=settings.trainer_nice)
    parser.add_argument("--no-report", action="store_true", help="leave docs as they are")
    devices.add_arguments(parser)
    told = parser.parse_args()
    settings = settings.model_copy(
        update={"trainer_device": told.device, "trainer_nice": told.nice}
    )
    model = devices.found(told.model)
    with tempfile.TemporaryDirectory(prefix="attune-bench-") as folder:
        base = load_language_model(model.path, model.identity, device=told.device)
        endless(base)
        device, dtype = base.device, str(base.model.dtype).removeprefix("torch.")
        version = Path(folder) / "version"
        write_version(base, version)
        shared = SharedModel(base.model) if on_one_gpu(device, told.device) else None
        engine = LocalEngine(
            base, max_batch=settings.max_batch, threads=settings.resolved_engine_threads
        )
        engine.swap(VersionRef(1, version))
        trainer = TrainerProcess(
            trainer_arguments(settings, model),
            handles=None if shared is None else shared.handles,
        )
        try:
            machine = Machine(engine, trainer, version)
            figures, gaps_s = measure(machine, told.round_pairs, told.new_tokens)
        finally:
            trainer.close()
            engine.close()
    figures["nice"] = told.nice
    figures["kind"] = devices.kind(device, dtype)
    figures["model"] = devices.called(told.model)
    figures["machine"] = devices.machine(device)
    print(json.dumps(figures), flush=True)
    if not told.no_report:
        write_report(figures, gaps_s, day=datetime.now(UTC).date())


@dataclass(frozen=True)
class Machine:
    """An engine and a trainer, and the version both begin with."""

    engine: Engine
    trainer: Trainer
    version: Path
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def round_s(self, pairs: tuple[PreferencePair, ...]) -> float:
        """Run a round to its end; seconds."""
        number = next(self.numbers)
        request = RoundRequest(
            round_id=number,
            pairs=pairs,
            held_out=pairs[:2],
            probe_prompts=tuple(messages(user) for user in USERS),
            parent=str(self.version),
            output=str(self.version.parent / f"round-{number}"),
            config=TrainConfig(),
        )
        started = time.perf_counter()
        self.trainer.run(request, lambda _: None, ROUND_S)
        return time.perf_counter() - started


@dataclass
class Served:
    """What somebody saw who asked for pairs: seconds of each, and between any two of its texts."""

    pairs_s: list[float] = field(default_factory=list)
    gaps_s: list[float] = field(default_factory=list)


def measure(
    machine: Machine, round_pairs: int, new_tokens: int
) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """The round alone, pairs alone, pairs beside prefetching, then beside the round.

    Returns:
        The figures, and seconds between tokens by what went on beside.
    """
    pairs = preference_pairs(machine.engine, round_pairs, new_tokens)
    machine.round_s(pairs[:1])  # loads the model, and whatever a first round does
    alone_s = machine.round_s(pairs)
    alone = serve(machine.engine, new_tokens, lambda served: len(served.pairs_s) >= PAIRS_ALONE)
    with made_ahead(machine.engine):
        beside = serve(
            machine.engine, new_tokens, lambda served: len(served.pairs_s) >= PAIRS_BESIDE_PREFETCH
        )
    with ThreadPoolExecutor(1) as pool:
        training: Future[float] = pool.submit(machine.round_s, pairs)
        during = serve(machine.engine, new_tokens, lambda _: training.done())
    usual_s, pair_s = statistics.median(alone.gaps_s), statistics.median(alone.pairs_s)
    figures = {
        "token_delay_ms_p95": _milliseconds(percentile(during.gaps_s, 95) - usual_s),
        "token_delay_alone_ms_p95": _milliseconds(percentile(alone.gaps_s, 95) - usual_s),
        "round_slowdown": round(training.result() / alone_s, 2),
        "pair_slowdown": round(statistics.median(during.pairs_s) / pair_s, 2),
        "pair_slowdown_beside_prefetch": round(statistics.median(beside.pairs_s) / pair_s, 2),
        "token_ms": _milliseconds(usual_s),
        "pair_s": round(pair_s, 2),
        "round_s": round(alone_s, 1),
        "round_pairs": round_pairs,
        "pairs_during_round": len(during.pairs_s),
    }
    gaps_s = {"alone": alone, "beside pairs made ahead": beside, "while a round runs": during}
    return figures, {name: served.gaps_s for name, served in gaps_s.items()}


def preference_pairs(engine: Engine, count: int, new_tokens: int) -> tuple[PreferencePair, ...]:
    """Pairs the engine has written, the first response of each chosen."""
    made = []
    for number, user in zip(range(count), itertools.cycle(USERS)):
        asked = requests(user, 2, new_tokens, sampled=True)
        first, second = engine.generate(asked).result()
        made.append(
            PreferencePair(
                pair_id=number,
                user_id=user,
                messages=messages(user),
                chosen=ResponseTokens(2 * number, first.token_ids),
                rejected=ResponseTokens(2 * number + 1, second.token_ids),
            )
        )
    return tuple(made)


@contextmanager
def made_ahead(engine: Engine) -> Iterator[None]:
    """Inside, pairs that nobody waits for are being written, without an end."""
    running = [
        engine.generate(requests(user, 2, _ENDLESS_TOKENS, sampled=True), Priority.PREFETCH)
        for user in USERS[:PREFETCHED]
    ]
    yield
    for generation in running:
        generation.cancel()
        generation.result()


def serve(engine: Engine, new_tokens: int, enough: Callable[[Served], bool]) -> Served:
    """Ask for pairs, with pauses as long as each took, until it is `enough`."""
    served = Served()
    pause = threading.Event()
    for user in itertools.cycle(USERS):
        started = time.perf_counter()
        running = engine.generate(requests(user, 2, new_tokens, sampled=True))
        seen = [time.perf_counter() for _ in running.stream()]
        took_s = time.perf_counter() - started
        served.pairs_s.append(took_s)
        served.gaps_s += [after - before for before, after in itertools.pairwise(seen)]
        if enough(served):
            return served
        pause.wait(took_s)
    raise AssertionError("users never run out")


def _milliseconds(seconds: float) -> float:
    return round(1000 * seconds, 1)


if __name__ == "__main__":
    main()
