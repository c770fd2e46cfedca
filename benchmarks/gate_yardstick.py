"""Is a bad candidate of `benchmarks.gate` really bad? Asked of what the gate does not see.

Other pairs, other prompts and longer texts, against the sound version that was damaged. Pairs are
few: their loss counts as risen by what chance does not explain, mean − 2·s/√n.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.gate_candidates import Candidate
from benchmarks.gate_world import Weights, World
from benchmarks.learning_world import as_prompt
from trainer.batching import PairRows
from trainer.gate_texts import TextFigures
from trainer.measuring import nonfinite
from trainer.probes import Probe, read_texts, text_figures, write_texts
from trainer.readings import own_readings

# Really bad is what is worse than the sound candidate by so much.
BOUNDS = {
    "loss_rise_nats": 0.05,
    "accuracy_drop": 0.25,
    "end_logp_drop_nats": 2.5,
    "nll_rise_nats": 0.5,
    "repetition_rise": 0.25,
    "length_ratio": 0.4,
}
_TOKENS = 40
_SEED = 977
_SURELY = 1e9


@dataclass(frozen=True, slots=True)
class _Pairs:
    """One user's pairs under one version: DPO losses (n,), share ranked as chosen, end of turn."""

    loss_nats: Tensor
    accuracy: float
    end_logp: float


class Yardstick:
    """Reads and writes as the writers a candidate was to harm, until one is seen to be harmed."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._in_sound: dict[tuple[str, int | None], TextFigures] = {}
        self._with_sound: dict[tuple[str, int], _Pairs] = {}

    def held_to(self, candidate: Candidate) -> dict[str, Any]:
        """By how much the candidate is worse than its sound original, and whether it counts."""
        if nonfinite({**candidate.weights.adapter, **candidate.weights.users}):
            return {"bad": True, "because": ["not finite"]}
        worst: dict[str, float] = {}
        because: list[str] = []
        for rises in (self._pair_rises, self._text_rises):
            for user in candidate.hurt:
                for name, rise in rises(candidate, user).items():
                    # An undefined figure (no token at all) is as bad as can be.
                    sure = _SURELY if math.isnan(rise) else rise
                    worst[name] = max(worst.get(name, -_SURELY), sure)
                because = [name for name, value in worst.items() if _too_much(name, value)]
                if because:
                    return {"bad": True, "because": because, "worst": worst}
        return {"bad": False, "because": because, "worst": worst}

    def _text_rises(self, candidate: Candidate, user: int | None) -> dict[str, float]:
        key = (candidate.sound.name, user)
        if key not in self._in_sound:
            self._in_sound[key] = self._texts(candidate.sound.weights, user)
        was, now = self._in_sound[key], self._texts(candidate.weights, user)
        return {
            "nll_rise_nats": now.nll_nats - was.nll_nats,
            "repetition_rise": now.repetition - was.repetition,
            "length_ratio": -now.mean_tokens / max(1e-9, was.mean_tokens),
        }

    @torch.no_grad()
    def _texts(self, weights: Weights, user: int | None) -> TextFigures:
        """What one writes to prompts the gate does not probe with."""
        world = self._world
        prompts = [as_prompt(prompt) for prompt in world.yard_probes]
        with world.attach(weights) as (adapter, users):
            probes = [Probe(prompt, users.prefix(user)) for prompt in prompts]
            ids = write_texts(world.base, world.format, probes, new_tokens=_TOKENS, seed=_SEED)
            with adapter.disabled():
                texts = read_texts(
                    world.base, world.format, prompts, ids, max_tokens=world.config.forward_tokens
                )
        return text_figures(texts)

    def _pair_rises(self, candidate: Candidate, user: int | None) -> dict[str, float]:
        """Of one's pairs that are neither trained on nor the gate's; the generic user has none."""
        rows = [r for r in self._world.rows(self._world.yard) if r.pair.user_id == user]
        if user is None or not rows:
            return {}
        key = (candidate.sound.name, user)
        if key not in self._with_sound:
            self._with_sound[key] = self._pairs(candidate.sound.weights, user, rows)
        was, now = self._with_sound[key], self._pairs(candidate.weights, user, rows)
        rise = now.loss_nats - was.loss_nats
        chance = 2 * float(rise.std()) / math.sqrt(len(rise)) if len(rise) > 1 else 0.0
        return {
            "loss_rise_nats": float(rise.mean()) - chance,
            "accuracy_drop": was.accuracy - now.accuracy,
            "end_logp_drop_nats": was.end_logp - now.end_logp,
        }

    @torch.no_grad()
    def _pairs(self, weights: Weights, user: int, rows: Sequence[PairRows]) -> _Pairs:
        world = self._world
        with world.attach(weights) as (_, users):
            readings = own_readings(world.base, users, rows, world.references(), world.config)
        losses = torch.tensor([reading.loss_nats for reading in readings])
        ends = [reading.end_logp for reading in readings if reading.end_logp is not None]
        return _Pairs(
            loss_nats=losses,
            accuracy=float((losses < math.log(2)).float().mean()),
            end_logp=sum(ends) / len(ends) if ends else 0.0,
        )


def _too_much(name: str, value: float) -> bool:
    return value > -BOUNDS[name] if name == "length_ratio" else value > BOUNDS[name]
