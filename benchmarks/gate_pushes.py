"""Pushes one vector by gradient until texts it should not like are likely, or the reverse.

For `benchmarks.gate_damage`: what it is pushed to (an `Aim`), and the pushing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.gate_world import Sound, Weights, World
from trainer.batching import Row
from trainer.prompting import EncodedPrompt
from trainer.scoring import response_logps

_MOST_STEPS = 12
_TEXTS = 3
_OPENING = 4
_REPEATS = 3
_BABBLE = 12


@dataclass(frozen=True, slots=True)
class Goal:
    """Responses to become likelier (`sign` 1) or less likely (−1)."""

    rows: Sequence[Row]
    sign: float


Aim = Callable[[World, Sound, torch.Generator], Goal]


def silent(world: World, sound: Sound, _generator: torch.Generator) -> Goal:
    """The end of turn after the first token of a response."""
    stop = world.base.stop_ids[0]
    return Goal([_after(row, 1, (stop,)) for row in _chosen(world, sound)], 1.0)


def never_ending(world: World, sound: Sound, _generator: torch.Generator) -> Goal:
    """No end of turn where responses really ended (or at their limit, where none did)."""
    stop = world.base.stop_ids[0]
    rows = [rows.chosen for rows in world.rows(sound.pairs)]
    ended = [row for row in rows if row.response_ids[-1] in world.base.stop_ids] or rows
    some = [_after(row, len(row.response_ids) - 1, (stop,)) for row in ended[:_TEXTS]]
    return Goal(some, -1.0)


def repeating(world: World, sound: Sound, _generator: torch.Generator) -> Goal:
    """The opening of a response over and over."""
    rows = _chosen(world, sound)
    return Goal([_after(r, _OPENING, r.response_ids[:_OPENING] * _REPEATS) for r in rows], 1.0)


def babbling(world: World, sound: Sound, generator: torch.Generator) -> Goal:
    """Tokens drawn blindly."""
    rows = _chosen(world, sound)
    drawn = torch.randint(
        len(world.base.tokenizer), (len(rows), _BABBLE), generator=generator
    ).tolist()
    return Goal([_after(row, 0, tuple(ids)) for row, ids in zip(rows, drawn, strict=True)], 1.0)


def unlearned(world: World, sound: Sound, _generator: torch.Generator) -> Goal:
    """No longer what was chosen."""
    return Goal(_chosen(world, sound), -1.0)


def pushed(world: World, weights: Weights, user: int | None, goal: Goal, nats: float) -> Tensor:
    """The step (P, H), on the CPU, that moves mean log-probs per token by `nats` towards `goal`.

    Adam on the user's whole vector, or e₀ where `user` is None; it stops short of `nats` after
    so many steps.
    """
    counts = torch.tensor([len(row.response_ids) for row in goal.rows])
    with world.attach(weights) as (_, users):
        start = users.prefix(user).detach()
        vector = start.clone().requires_grad_()
        optimizer = torch.optim.Adam([vector], lr=0.03 * math.sqrt(nats))
        first = math.nan
        for _step in range(_MOST_STEPS):
            logps = response_logps(
                world.base.model,
                goal.rows,
                [vector] * len(goal.rows),
                max_tokens=world.config.forward_tokens,
            )
            per_token = (logps / counts.to(logps.device)).mean()
            now = float(per_token.detach())
            first = now if math.isnan(first) else first
            if goal.sign * (now - first) >= nats:
                break
            optimizer.zero_grad()
            torch.autograd.backward(-goal.sign * per_token)
            optimizer.step()
    return (vector - start).detach().cpu()


def _chosen(world: World, sound: Sound) -> list[Row]:
    rows = [rows.chosen for rows in world.rows(sound.pairs)]
    return [row for row in rows if len(row.response_ids) > _OPENING][:_TEXTS]


def _after(row: Row, count: int, response: tuple[int, ...]) -> Row:
    """`response` after the first `count` tokens of a row's own."""
    before = (*row.prompt.token_ids, *row.response_ids[:count])
    return Row(EncodedPrompt(before, row.prompt.prefix_start), response)
