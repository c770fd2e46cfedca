"""What styles do to traits: `python -m benchmarks.style_traits` makes `backend/data/traits.json`.

The base model answers prompts that are kept for tuning, under e₀ and under each style's direction.
From its texts come a trait's centre (answers without a style), its unit (how far answers to one
prompt lie apart, the odd hundredth at either end drawn in) and every style's mean. Ten minutes on a
core with bfloat16.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from backend.base_model import resolve
from backend.local_model import style_directions
from backend.settings import load_settings
from backend.styles import load_styles
from backend.traits import FARTHEST, NAMES, Vector, measured
from benchmarks.learning_world import Asked, World, as_prompt, questions
from trainer.config import TrainConfig
from trainer.language_model import load_language_model
from trainer.prompting import PromptFormat
from trainer.user_models import initial_users

_TARGET = Path(__file__).parents[1] / "backend" / "data" / "traits.json"
_HELD_OUT, _PROMPTS, _TIMES = 24, 100, 4
_NEW_TOKENS, _SEED = 96, 1000
_ODD = 0.01
_LEAST_UNIT = 1e-3


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.style_traits", description=__doc__)
    parser.add_argument("--out", type=Path, default=_TARGET)
    options = parser.parse_args()
    texts = written()
    options.out.write_text(as_json(table(texts)), "utf-8")
    sys.stdout.write(f"{sum(map(len, texts.values()))} texts, {options.out}\n")


def written() -> dict[str, list[str]]:
    """Style → its answers, in the same order of prompts for each."""
    settings = load_settings({"ATTUNE_USER_MODEL": "styled"})
    model = resolve(settings.model, None, settings.cache_dir)
    base = load_language_model(model.path, model.identity)
    directions = style_directions(settings, model.identity)
    if directions is None:
        raise SystemExit("this base model has no style directions")
    config = TrainConfig()
    prompts = PromptFormat(base.tokenizer, config.prefix_tokens)
    generic = initial_users(base.model, base.tokenizer, config).prefix(None).detach()
    vectors = [generic, *(generic + direction for direction in directions)]
    world = World(base, prompts, _NEW_TOKENS, 1024, directions)
    asked = questions(tuning=True, held_out=_HELD_OUT, seed=0).training[:_PROMPTS]
    texts = {}
    for style, vector in zip(load_styles(), vectors, strict=True):
        rows = [Asked(as_prompt(question), vector) for question in asked for _ in range(_TIMES)]
        texts[style.name] = [one.text for one in world.write(rows, seed=_SEED)]
    return texts


def table(texts: Mapping[str, Sequence[str]]) -> dict[str, object]:
    """Centre and unit of each trait, and each style's mean in units, by name."""
    traits = {style: np.stack([measured(text) for text in some]) for style, some in texts.items()}
    (plain,) = (traits[style.name] for style in load_styles() if not style.wish)
    centre, unit = plain.mean(0), _unit(list(traits.values()))
    return {
        "centre": _by_name(centre),
        "unit": _by_name(unit),
        "styles": {
            style: _by_name(np.clip((some - centre) / unit, -FARTHEST, FARTHEST).mean(0))
            for style, some in traits.items()
        },
    }


def as_json(found: Mapping[str, object]) -> str:
    """A line each for centre, unit and every style: hundreds of numbers that nobody reads alone."""
    styles = found["styles"]
    assert isinstance(styles, Mapping)
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(has)}" for name, has in styles.items())
    centre, unit = json.dumps(found["centre"]), json.dumps(found["unit"])
    return f'{{\n "centre": {centre},\n "unit": {unit},\n "styles": {{\n{lines}\n }}\n}}\n'


def _unit(of_styles: Sequence[Vector]) -> Vector:
    """Spread (T,) of all answers to one prompt around their mean."""
    together = np.stack(of_styles, axis=1)  # (prompts · times, S, T)
    by_prompt = together.reshape(-1, _TIMES * len(of_styles), together.shape[-1])
    away = (by_prompt - by_prompt.mean(1, keepdims=True)).reshape(-1, by_prompt.shape[-1])
    low, high = np.quantile(away, [_ODD, 1 - _ODD], axis=0)
    freedom = len(away) - len(by_prompt)
    spread = np.sqrt((np.clip(away, low, high) ** 2).sum(0) / freedom)
    least: Vector = np.maximum(spread, _LEAST_UNIT)
    return least


def _by_name(values: Vector) -> dict[str, float]:
    return {name: round(float(value), 4) for name, value in zip(NAMES, values, strict=True)}


if __name__ == "__main__":
    main()
