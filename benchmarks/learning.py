"""Does what is generated become each person's own? `make bench-learning` (FULL=1: the long form).

Simulated users choose, P-DPO and its controls learn from the same choices, and everybody answers
held-out prompts. One result file per seed lands in docs/results; the table, the plots and the
samples in docs/RESULTS.md are made from those files. Prints one JSON line last.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from backend.base_model import resolve
from backend.local_model import style_directions
from backend.settings import load_settings
from benchmarks import devices, learning_report
from benchmarks.learning_state import Plan, State
from benchmarks.learning_trial import Trial
from benchmarks.learning_world import World, questions
from benchmarks.sections import put_between
from trainer.config import TrainConfig, UserModelKind, recipe_for
from trainer.language_model import load_language_model
from trainer.prompting import PromptFormat

_ROOT = Path(__file__).parents[1]
_RESULTS = _ROOT / "docs" / "results"
_DOCUMENT = _ROOT / "docs" / "RESULTS.md"
_FIGURES = _ROOT / "docs" / "figures"


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is done; `rules` are the reported personas, never those recipes are tuned on.

    Attributes:
        user_model: the one on trial, by the recipe it is shipped with.
    """

    user_model: UserModelKind = "styled"
    rules: tuple[str, ...]
    rounds: int
    checkpoints: tuple[int, ...]
    held_out: int
    own_adapters: bool
    rounds_of_others: int
    seeds: tuple[int, ...]
    new_tokens: int


_PLAIN = Size(
    rules=("shorter", "longer", "simple words", "technical words"),
    rounds=4,
    checkpoints=(20,),
    held_out=12,
    own_adapters=False,
    rounds_of_others=0,
    seeds=(0,),
    new_tokens=96,
)
SIZES = {
    "plain": _PLAIN,
    # P-DPO as published: where all share an adapter, a user who stays away can be forgotten.
    "individual": replace(_PLAIN, user_model="individual", held_out=24, rounds_of_others=20),
    "full": Size(
        rules=(
            *("shorter", "longer", "lists", "no lists"),
            *("simple words", "technical words", "warm", "sober"),
        ),
        rounds=8,
        checkpoints=(20, 40),
        held_out=24,
        own_adapters=True,
        rounds_of_others=20,
        seeds=(0, 1, 2),
        new_tokens=96,
    ),
}
# Recipes are searched on other personas and other prompts than those reported.
TUNING_RULES = ("short sentences", "long sentences", "first person", "impersonal")
_PER_ROUND = 5
_TITLES = {
    "plain": "Plain: four personas, 20 choices each",
    "individual": "Individual: a vector of one's own and an adapter that all share",
    "full": "Full: eight personas, 40 choices each",
}
_COMMANDS = {
    "plain": "make bench-learning",
    "individual": "SIZE=individual make bench-learning",
    "full": "FULL=1 make bench-learning",
}


def main(arguments: list[str] | None = None) -> None:
    """Run the trials that have no result file yet, then write the report."""
    options = _options(arguments)
    size = SIZES[options.size]
    config = recipe_for(**({"user_model": size.user_model} | json.loads(options.recipe)))
    for seed in options.seeds if options.seeds is not None else size.seeds:
        target = options.results / f"learning-{options.size}-{seed}.json"
        if options.again or not target.exists():
            _run(size, config, seed, target, tuning=options.tuning)
    trials = learning_report.read_trials(options.results, options.size)
    if options.tuning:
        print(json.dumps(learning_report.goals(trials)))
        return
    section = learning_report.report(
        trials, _TITLES[options.size], _COMMANDS[options.size], _FIGURES, options.size
    )
    put_between(_DOCUMENT, f"learning {options.size}", section)
    print(json.dumps(learning_report.goals(trials)))


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learning", description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="plain")
    parser.add_argument("--seeds", type=int, nargs="*", help="only these seeds")
    parser.add_argument("--again", action="store_true", help="run even where a result file exists")
    parser.add_argument("--results", type=Path, default=_RESULTS, help="folder of result files")
    parser.add_argument(
        "--tuning", action="store_true", help="the personas and prompts kept for tuning recipes"
    )
    parser.add_argument("--recipe", default="{}", help="training settings to change, as JSON")
    return parser.parse_args(arguments)


def _run(size: Size, config: TrainConfig, seed: int, target: Path, *, tuning: bool) -> None:
    """One trial; its result file is written at the end, whole."""
    settings = load_settings({"ATTUNE_USER_MODEL": config.user_model})
    model = resolve(settings.model, None, settings.cache_dir, _say)
    base = load_language_model(model.path, model.identity)
    asked = questions(tuning=tuning, held_out=size.held_out, seed=seed)
    plan = Plan(
        rules=TUNING_RULES if tuning else size.rules,
        per_round=_PER_ROUND,
        rounds=size.rounds,
        checkpoints=size.checkpoints,
        replay=0.25,
        shared=0.0 if config.user_model == "styled" else 0.4,
        varied=1.0,
        own_adapters=size.own_adapters,
        drafts=settings.drafts,  # as the app has it
        rounds_of_others=size.rounds_of_others,
        seed=seed,
    )
    directions = style_directions(settings, model.identity)
    prompts = PromptFormat(base.tokenizer, config.prefix_tokens)
    world = World(base, prompts, size.new_tokens, 1024, directions)
    config = replace(config, seed=seed)
    half_way = target.with_suffix(".state")
    spent_s, state = _read_state(half_way, plan, config)
    started = time.perf_counter() - spent_s

    def keep(state: State) -> None:
        record = (plan, config, time.perf_counter() - started, state)
        _replace_file(half_way, pickle.dumps(record))

    results = Trial(world, plan, asked, config, say=_say, state=state).run(keep)
    content: dict[str, Any] = {
        "machine": _machine(base.device),
        "plan": asdict(plan),
        "recipe": config.to_json(),
        "held_out": size.held_out,
        "new_tokens": size.new_tokens,
        "questions": asked.held_out,
        "seconds": round(time.perf_counter() - started, 1),
        **asdict(results),
    }
    _replace_file(target, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())
    half_way.unlink(missing_ok=True)


def _read_state(path: Path, plan: Plan, config: TrainConfig) -> tuple[float, State | None]:
    """Seconds spent and where an interrupted trial stood; one of another kind is left alone."""
    if not path.exists():
        return 0.0, None
    kept_plan, kept_config, spent_s, state = pickle.loads(path.read_bytes())  # noqa: S301 - ours
    if (kept_plan, kept_config) != (plan, config):
        return 0.0, None
    _say(f"going on after round {state.rounds}")
    return spent_s, state


def _replace_file(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_bytes(content)
    partial.replace(path)


def _machine(device: torch.device) -> str:
    named = devices.machine(device)
    return f"{os.cpu_count()} cores, {named}, {torch.get_num_threads()} threads"


def _say(message: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {message}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
