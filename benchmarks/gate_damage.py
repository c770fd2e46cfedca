"""Ways to make a sound version bad, for `benchmarks.gate_candidates`.

Each takes a sound version apart in one way at one strength, aimed at somebody. Numbers that a norm
takes out again (a vector's scale, mild noise on it) harm nobody and are not among them. Whether a
candidate is really bad is asked afterwards of a yardstick the gate does not see
(`benchmarks.gate_yardstick`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.gate_pushes import Aim, babbling, never_ending, pushed, repeating, silent, unlearned
from benchmarks.gate_world import OPPOSED, USERS, Sound, Weights, World, between, clone

Hurt = tuple[int | None, ...]
Apply = Callable[[World, Sound, float, torch.Generator], tuple[Weights, Hurt]]

CLASSES = (
    "not finite",
    "collapsed",
    "wrong user",
    "forgotten user",
    "length runaway",
    "garbage",
)


CHILDREN = (0, 1, 2, 3, 4, 5)
# Users 3 and 4 have most to lose: with texts this short, 1 and 2 differ little.
_LEARNING = (1, 2, 3, 4, 5)  # 3 or 4 took part
_RESTING = (0, 2, 4, 5)  # 3 or 4 did not, and comes last of those who did not


@dataclass(frozen=True, slots=True)
class Damage:
    """One way to damage, tried at each of `strengths` in turn.

    Attributes:
        apply: the damaged weights, and the writers the damage is aimed at.
        children: the sound rounds it is tried on.
    """

    how: str
    strengths: tuple[float, ...]
    apply: Apply
    children: tuple[int, ...] = CHILDREN


def noisy(
    adapter: dict[str, Tensor], strength: float, generator: torch.Generator
) -> dict[str, Tensor]:
    """Every matrix with noise of `strength` times its own root mean square."""
    return {
        name: tensor
        + strength * tensor.square().mean().sqrt() * torch.randn(tensor.shape, generator=generator)
        for name, tensor in adapter.items()
    }


def _poisoned(where: str) -> Apply:
    def apply(
        _world: World, sound: Sound, strength: float, generator: torch.Generator
    ) -> tuple[Weights, Hurt]:
        weights = _copy(sound.weights)
        if where == "adapter":
            names = sorted(weights.adapter)
            target = weights.adapter[names[_drawn(len(names), generator)]]
        else:
            target = weights.users[where]
        flat = target.view(-1)
        flat[_drawn(flat.numel(), generator)] = strength
        return weights, (None,)

    return apply


def _scaled_adapter(
    _world: World, sound: Sound, strength: float, _generator: torch.Generator
) -> tuple[Weights, Hurt]:
    weights = _copy(sound.weights)
    for name, tensor in weights.adapter.items():
        if "lora_B" in name:
            tensor.mul_(strength)
    return weights, (None, sound.took_part[0])


def _trained_harshly(
    world: World, sound: Sound, strength: float, _generator: torch.Generator
) -> tuple[Weights, Hurt]:
    end = world.harsh(sound)
    return on_the_way(sound.weights, end, strength, sound), (None, *sound.took_part)


def _misread(
    world: World, sound: Sound, strength: float, _generator: torch.Generator
) -> tuple[Weights, Hurt]:
    end = world.misread(sound)
    return on_the_way(sound.weights, end, strength, sound), tuple(sound.took_part)


def _exchanged(
    _world: World, sound: Sound, strength: float, _generator: torch.Generator
) -> tuple[Weights, Hurt]:
    return _towards_opposed(sound.weights, sound.took_part, strength), tuple(sound.took_part)


def _exchanged_absentee(
    _world: World, sound: Sound, strength: float, _generator: torch.Generator
) -> tuple[Weights, Hurt]:
    user = _absent(sound)[-1]
    return _towards_opposed(sound.weights, [user], strength), (user,)


def _lost(
    _world: World, sound: Sound, strength: float, _generator: torch.Generator
) -> tuple[Weights, Hurt]:
    """Absentees' vectors shrink towards e₀; at strength 1 they are lost."""
    weights = _copy(sound.weights)
    absent = _absent(sound)
    for user in absent:
        weights.users["offsets"][_row(weights, user)] *= 1 - strength
    if strength == 1:
        keep = [r for r, u in enumerate(weights.users["user_ids"].tolist()) if u not in absent]
        weights.users["user_ids"] = weights.users["user_ids"][keep]
        weights.users["offsets"] = weights.users["offsets"][keep]
    return weights, tuple(absent)


def _forgetting(
    world: World, sound: Sound, strength: float, _generator: torch.Generator
) -> tuple[Weights, Hurt]:
    end = world.forgetting(sound)
    mixed = between(sound.weights, end, strength)
    return Weights(mixed.adapter, clone(sound.weights.users)), tuple(_absent(sound))


def _noisy_adapter(
    _world: World, sound: Sound, strength: float, generator: torch.Generator
) -> tuple[Weights, Hurt]:
    weights = _copy(sound.weights)
    drowned = Weights(noisy(weights.adapter, strength, generator), weights.users)
    return drowned, (None, sound.took_part[0])


def _shuffled_adapter(
    _world: World, sound: Sound, strength: float, generator: torch.Generator
) -> tuple[Weights, Hurt]:
    """Rows of every B in another order, and B so many times as strong."""
    weights = _copy(sound.weights)
    for name, tensor in weights.adapter.items():
        if "lora_B" in name:
            order = torch.randperm(len(tensor), generator=generator)
            weights.adapter[name] = strength * tensor[order]
    return weights, (None, sound.took_part[0])


def _pushed_user(aim: Aim) -> Apply:
    """Push the vector of one who took part by `strength` nats a token."""

    def apply(
        world: World, sound: Sound, strength: float, generator: torch.Generator
    ) -> tuple[Weights, Hurt]:
        user = sound.took_part[-1]
        weights = _copy(sound.weights)
        step = pushed(world, weights, user, aim(world, sound, generator), strength)
        weights.users["offsets"][_row(weights, user)] += step
        return weights, (user,)

    return apply


def _pushed_generic(aim: Aim) -> Apply:
    """The same of e₀, which is part of every vector."""

    def apply(
        world: World, sound: Sound, strength: float, generator: torch.Generator
    ) -> tuple[Weights, Hurt]:
        weights = _copy(sound.weights)
        step = pushed(world, weights, None, aim(world, sound, generator), strength)
        weights.users["generic"] += step
        return weights, (None,)

    return apply


def _towards_opposed(start: Weights, users: Sequence[int], strength: float) -> Weights:
    """`users` get the vector of opposed taste, at `strength` of the way."""
    weights = _copy(start)
    offsets, old = weights.users["offsets"], start.users["offsets"]
    for user in users:
        mine, other = _row(start, user), _row(start, _opposed(user))
        offsets[mine] = torch.lerp(old[mine], old[other], strength)
    return weights


def on_the_way(start: Weights, end: Weights, share: float, sound: Sound) -> Weights:
    """Between two versions; `lerp` may round what is equal, so absentees are carried over."""
    mixed = between(start, end, share)
    for user in _absent(sound):
        row = _row(mixed, user)
        mixed.users["offsets"][row] = start.users["offsets"][row]
    return mixed


def _copy(weights: Weights) -> Weights:
    return Weights(clone(weights.adapter), clone(weights.users))


def _absent(sound: Sound) -> list[int]:
    return [user for user in USERS if user not in sound.took_part]


def _opposed(user: int) -> int:
    return next(b if a == user else a for a, b in OPPOSED if user in (a, b))


def _row(weights: Weights, user: int) -> int:
    ids: list[int] = weights.users["user_ids"].tolist()
    return ids.index(user)


def _drawn(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(count, (1,), generator=generator))


WAYS: dict[str, tuple[Damage, ...]] = {
    "not finite": (
        Damage("a number of the adapter", (math.nan, math.inf, -math.inf), _poisoned("adapter")),
        Damage("a number of a user", (math.inf, math.nan), _poisoned("offsets")),
        Damage("a number of e₀", (math.nan, -math.inf), _poisoned("generic")),
    ),
    "collapsed": (
        Damage("adapter scaled", (12.0, 8.0, 25.0), _scaled_adapter),
        Damage("a user's texts repeat themselves", (6.0, 5.0, 7.0), _pushed_user(repeating)),
        Damage("trained harshly", (1.0, 0.8, 1.2), _trained_harshly),
        Damage("everybody's texts repeat themselves", (6.0, 5.0, 7.0), _pushed_generic(repeating)),
    ),
    "wrong user": (
        Damage("users get the vector of opposed taste", (1.0, 0.8, 0.9), _exchanged, _LEARNING),
        Damage("choices learnt the wrong way round", (1.0, 0.75, 1.25), _misread, _LEARNING),
        Damage(
            "an absentee gets the opposed vector",
            (1.0, 0.9, 0.95, 0.85),
            _exchanged_absentee,
            _RESTING,
        ),
    ),
    "forgotten user": (
        Damage(
            "absentees' vectors lost or shrunk", (1.0, 0.9, 0.8, 0.95, 0.85, 0.75), _lost, _RESTING
        ),
        Damage("the adapter unlearns absentees", (1.5, 2.0, 2.5, 1.75), _forgetting),
    ),
    "length runaway": (
        Damage("a user's texts never end", (7.0, 6.0, 9.0, 8.0), _pushed_user(never_ending)),
        Damage("a user's texts end at once", (8.0, 6.0, 12.0, 10.0), _pushed_user(silent)),
    ),
    "garbage": (
        Damage("noise on the adapter", (12.0, 8.0, 20.0), _noisy_adapter),
        Damage("a user's vector unlearns language", (3.0, 2.0, 4.0), _pushed_user(unlearned)),
        Damage("e₀ learns to babble", (3.0, 2.0, 4.0), _pushed_generic(babbling)),
        Damage("adapter's rows shuffled", (12.0, 8.0, 20.0), _shuffled_adapter),
    ),
}
