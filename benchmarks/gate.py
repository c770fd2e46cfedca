"""The gate against candidates of known worth, on the real model: `make bench-gate`.

Sound versions are trained on the choices of simulated users; good candidates are further sound
rounds, bad ones are sound versions damaged on purpose. Each goes through the measuring and the
judgement that a round goes through. Whether a bad one is really bad is asked of a yardstick the
gate does not see: other prompts, other pairs, longer texts. One that is not is left out and
counted. Every candidate is written to the result file as soon as it is judged. A round unlearns
what suits its user worse than nothing before the gate looks; here the gate has to see it.

The figures kept are those the judge reads, so that `--judge-again` can say what other bounds would
have decided without measuring anything again. Bounds were set by candidates of six sound rounds;
the fresh ones come from six others, which were first looked at when the bounds stood.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from backend.base_model import resolve
from benchmarks import devices
from benchmarks.gate_candidates import Candidate, bad, good
from benchmarks.gate_damage import CHILDREN
from benchmarks.gate_report import (
    DOCUMENT,
    FRESH,
    RESULTS,
    document,
    is_fresh,
    read_records,
    summarize,
    write_records,
)
from benchmarks.gate_world import Sizes, Sound, World
from benchmarks.gate_yardstick import Yardstick
from benchmarks.learning_world import as_prompt
from dev.random_model import random_model
from trainer.batching import PairRows
from trainer.config import GateConfig, TrainConfig
from trainer.gate import GateFigures, judge
from trainer.language_model import LanguageModel, load_language_model
from trainer.measuring import Examination, measure
from trainer.own_pairs import examined, read_own_pairs
from trainer.probes import BaseTexts
from trainer.readings import PairReading, own_readings

CACHE = Path("~/.cache/attune")
TINY = TrainConfig(
    prefix_tokens=4,
    epochs=1,
    lora_rank=4,
    lora_alpha=8,
    gate=GateConfig(
        probe_prompts=2, probe_new_tokens=8, max_nll_rise_nats=10.0, doubtful_nll_rise_nats=10.0
    ),
)
TINY_SIZES = Sizes(
    learn=4, gate=2, yard=2, probes=2, yard_probes=2, tokens=12, rounds=2, guess=True
)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Run what is asked for; the summary, which is also printed as the last line."""
    asked = _parser().parse_args(arguments)
    known = read_records(asked.results) if asked.resume or asked.judge_again else {}
    if not asked.judge_again:
        torch.set_num_threads(asked.threads)
        cache = CACHE.expanduser()
        base, config, sizes = _tiny(cache) if asked.tiny else _embedded(cache)
        # What is judged is trained alike, whatever the bounds are.
        trained_by = {**config.to_json(), "gate": None}
        recipe = zlib.crc32(repr((base.identity, trained_by, sizes)).encode())
        known = {name: r for name, r in known.items() if r["recipe"] == recipe}
        folder = asked.folder or cache / "bench-gate" / f"{recipe:08x}"
        world = World(base, config, sizes, folder, _say)
        bench = Bench(world)
        where = {
            "machine": f"{devices.machine(base.device)}, {torch.get_num_threads()} threads",
            "day": datetime.now(UTC).date().isoformat(),
        }
        for name in _wanted(asked):
            if name not in known:
                known[name] = {"recipe": recipe, **where, **bench.judged(name)}
                write_records(asked.results, known)
                _say(_line(name, known[name]))
    summary = summarize(known, TINY.gate if asked.tiny else GateConfig())
    if asked.results == RESULTS:
        document(summary, known, DOCUMENT)
    print(json.dumps(summary))
    return summary


class Bench:
    """Judges candidates of one world as a round does, and holds the bad ones to the yardstick."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._base_texts = BaseTexts()
        self._before: dict[tuple[str, str], list[PairReading]] = {}
        self._yardstick = Yardstick(world)

    def judged(self, name: str) -> dict[str, Any]:
        """The record of one candidate: how it came about, figures, verdict, yardstick."""
        make = good if "good" in name else bad
        first_child = len(CHILDREN) if is_fresh(name) else 0
        candidate = make(self._world, int(name[-3:]), first_child=first_child)
        started, cpu = time.perf_counter(), time.process_time()
        figures = self._measured(candidate)
        seconds, cpu_s = time.perf_counter() - started, time.process_time() - cpu
        reasons = judge(figures, self._world.config.gate)
        record = {
            "kind": candidate.kind,
            "how": candidate.how,
            "strength": str(candidate.strength),
            "from": candidate.sound.name,
            "dtype": str(self._world.base.model.dtype).removeprefix("torch."),
            "refused": bool(reasons),
            "reasons": list(reasons),
            "figures": asdict(figures),
            "s": round(seconds, 2),
            "cpu_s": round(cpu_s, 2),
        }
        if candidate.kind != "good":
            record["yardstick"] = self._yardstick.held_to(candidate)
        return record

    def _measured(self, candidate: Candidate) -> GateFigures:
        world, sound = self._world, candidate.sound
        pairs, held_out = world.rows(sound.pairs), world.rows(world.held_out)
        some = examined(pairs)
        before = self._read_before(candidate.parent, "held out", held_out)
        own_before = self._read_before(candidate.parent, sound.name, some)
        references, config = world.references(), world.config
        with world.attach(candidate.weights) as (adapter, users):
            own = read_own_pairs(
                world.base, users, some, own_before, references=references, config=config
            )
            examination = Examination(
                kind="full",
                round_id=1,
                pairs=pairs,
                held_out=held_out,
                before=before,
                own=own,
                own_references=references,
                parent=world.state(candidate.parent.weights),
                prompts=[as_prompt(p) for p in world.probes[: config.gate.probe_prompts]],
            )
            figures, _ = measure(
                world.base,
                adapter,
                users,
                examination,
                config=config,
                base_texts=self._base_texts,
            )
        return figures

    def _read_before(
        self, parent: Sound, which: str, pairs: Sequence[PairRows]
    ) -> list[PairReading]:
        world, key = self._world, (parent.name, which)
        if key not in self._before:
            with world.attach(parent.weights) as (_, users):
                self._before[key] = own_readings(
                    world.base, users, pairs, world.references(), world.config
                )
        return self._before[key]


def _wanted(asked: argparse.Namespace) -> list[str]:
    """Names of candidates, those by which bounds were set first, good and bad in turn."""
    counts = {
        "good": asked.good,
        "bad": asked.bad,
        f"{FRESH}good": asked.fresh_good,
        f"{FRESH}bad": asked.fresh_bad,
    }
    names = [f"{kind}-{n:03}" for kind, count in counts.items() for n in range(count)]
    return sorted(names, key=lambda name: (is_fresh(name), int(name[-3:]), name))


def _embedded(cache: Path) -> tuple[LanguageModel, TrainConfig, Sizes]:
    model = resolve("embedded", None, cache)
    return load_language_model(model.path, model.identity), TrainConfig(), Sizes()


def _tiny(cache: Path) -> tuple[LanguageModel, TrainConfig, Sizes]:
    """A random model of two layers: shows that everything runs, and nothing else."""
    path = resolve("embedded", None, cache).path
    tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    return random_model(tokenizer, "tiny" * 16), TINY, TINY_SIZES


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gate", description=__doc__)
    parser.add_argument("--bad", type=int, default=232, help="so many bad candidates")
    parser.add_argument("--good", type=int, default=50, help="so many good candidates")
    parser.add_argument("--fresh-bad", type=int, default=90, help="the same of six other rounds")
    parser.add_argument("--fresh-good", type=int, default=30)
    parser.add_argument("--tiny", action="store_true", help="a random model, to see that it runs")
    parser.add_argument("--resume", action="store_true", help="keep what the result file holds")
    parser.add_argument("--judge-again", action="store_true", help="measure nothing, judge anew")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--folder", type=Path, help="keeps texts and sound versions between runs")
    return parser


def _line(name: str, record: Mapping[str, Any]) -> str:
    verdict = "refused" if record["refused"] else "accepted"
    mild = "" if record.get("yardstick", {"bad": True})["bad"] else " (not really bad)"
    first = f": {record['reasons'][0]}" if record["reasons"] else ""
    how = f"{record['kind']}, {record['how']} at {record['strength']}"
    return f"{name} {verdict}{mild} in {record['cpu_s']} s — {how}{first}"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
