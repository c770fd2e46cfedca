"""Good candidates and deliberately bad ones, for `benchmarks.gate`: weights, never figures."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from benchmarks.gate_damage import CHILDREN, CLASSES, WAYS, noisy, on_the_way
from benchmarks.gate_world import Sound, Weights, World

_SHARES = (1.0, 0.5, 0.75, 0.25, 1.15, 0.9, 0.6, 0.35, 1.05, 0.8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One candidate and how it came about.

    Attributes:
        parent: the version it is compared with. sound: the candidate before it was damaged.
        kind: "good" or a class of damage. how: the damage in words. strength: of it.
        hurt: the writers the damage is aimed at; None is the generic user.
    """

    parent: Sound
    sound: Sound
    weights: Weights
    kind: str
    how: str
    strength: float
    hurt: tuple[int | None, ...]


def good(world: World, number: int, *, first_child: int = 0) -> Candidate:
    """A sound round at some share of its way, every third with the least noise.

    No two of the first sixty are the same round at the same share.
    """
    turn, place = divmod(number, len(CHILDREN))
    child = world.child(first_child + CHILDREN[place])
    share = _SHARES[(turn + place) % len(_SHARES)]
    noise = 0.02 if number % 3 == turn % 3 else 0.0
    parent = world.parent()
    weights = on_the_way(parent.weights, child.weights, share, child)
    if noise:
        generator = torch.Generator().manual_seed(number)
        weights = Weights(noisy(weights.adapter, noise, generator), weights.users)
    return Candidate(
        parent=parent,
        sound=child,
        weights=weights,
        kind="good",
        how=f"{child.name}, share {share}, noise {noise}",
        strength=share,
        hurt=(),
    )


def bad(world: World, number: int, *, first_child: int = 0) -> Candidate:
    """The `number`-th bad candidate: classes, their ways, sound rounds and strengths in turn."""
    kind = CLASSES[number % len(CLASSES)]
    ways = WAYS[kind]
    turn, which = divmod(number // len(CLASSES), len(ways))
    way = ways[which]
    lap, place = divmod(turn, len(way.children))
    sound = world.child(first_child + way.children[place])
    strength = way.strengths[(lap + place) % len(way.strengths)]  # another one in each lap
    generator = torch.Generator().manual_seed(1000 * (1 + first_child) + number)
    weights, hurt = way.apply(world, sound, strength, generator)
    return Candidate(
        parent=world.parent(),
        sound=sound,
        weights=weights,
        kind=kind,
        how=way.how,
        strength=strength,
        hurt=hurt,
    )
