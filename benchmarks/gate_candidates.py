"""Good candidates and deliberately bad ones, for `benchmarks.gate`: weights, never figures."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from benchmarks.gate_damage import CHILDREN, CLASSES, WAYS, noisy, on_the_way
from benchmarks.gate_world import Sound, Weights, World


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


def good(world: World, number: int) -> Candidate:
    """A sound round at some share of its way, every third with the least noise."""
    child = world.child(CHILDREN[number % len(CHILDREN)])
    # Children, shares and noise come in turn; the second term keeps turns from repeating.
    share = (1.0, 0.5, 0.75, 0.25, 1.15)[(number + number // 30) % 5]
    noise = 0.02 if number % 3 == 2 else 0.0
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


def bad(world: World, number: int) -> Candidate:
    """The `number`-th bad candidate: classes, their ways, sound rounds and strengths in turn."""
    kind = CLASSES[number % len(CLASSES)]
    ways = WAYS[kind]
    turn, which = divmod(number // len(CLASSES), len(ways))
    way = ways[which]
    lap, place = divmod(turn, len(way.children))
    sound = world.child(way.children[place])
    strength = way.strengths[(lap + place) % len(way.strengths)]  # another one in each lap
    generator = torch.Generator().manual_seed(1000 + number)
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
