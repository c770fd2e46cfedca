"""Good candidates and deliberately bad ones, for `benchmarks.gate`: weights, never figures.

Each bad one is a sound version damaged in one way at one strength. Whether it is really bad is
asked afterwards of a yardstick the gate does not see (`benchmarks.gate`): some of the mild ones
are not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.gate_world import OPPOSED, USERS, Sound, Weights, World, between, clone
from trainer.batching import Row
from trainer.prompting import EncodedPrompt
from trainer.scoring import response_logps

CLASSES = (
    "not finite",
    "collapsed",
    "wrong user",
    "forgotten user",
    "length runaway",
    "garbage",
)


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


@dataclass(frozen=True, slots=True)
class _Damage:
    """One way to damage, tried at each of `strengths` in turn."""

    how: str
    strengths: tuple[float, ...]
    apply: Callable[[World, Sound, float, torch.Generator], tuple[Weights, tuple[int | None, ...]]]


def good(world: World, number: int) -> Candidate:
    """A sound round at some share of its way, every third with the least noise."""
    # Six rounds of different users come in turn, eight further candidates on from each.
    child = world.child(number % _children(number))
    share = (1.0, 0.5, 0.75, 0.25, 1.15)[number % 5]
    noise = 0.02 if number % 3 == 2 else 0.0
    parent = world.parent()
    weights = between(parent.weights, child.weights, share)
    # Between two tensors of the same bits `lerp` may round: absentees are carried over exactly.
    weights = _with_absentees(weights, parent.weights, child.took_part)
    if noise:
        generator = torch.Generator().manual_seed(number)
        weights = Weights(_noisy(weights.adapter, noise, generator), weights.users)
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
    """The `number`-th bad candidate: classes, their ways and their strengths in turn."""
    kind = CLASSES[number % len(CLASSES)]
    turn = number // len(CLASSES)
    ways = _WAYS[kind]
    way = ways[turn % len(ways)]
    strength = way.strengths[(turn // len(ways)) % len(way.strengths)]
    sound = world.child(turn % _children(number))
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


def _children(number: int) -> int:
    """How many sound rounds the first `number` candidates draw on: training is what takes long."""
    return min(6, 1 + number // 8)


def _with_absentees(weights: Weights, parent: Weights, took_part: list[int]) -> Weights:
    users = clone(weights.users)
    for row, user in enumerate(users["user_ids"].tolist()):
        if user not in took_part:
            users["offsets"][row] = parent.users["offsets"][row]
    return Weights(weights.adapter, users)


def _absent(sound: Sound) -> list[int]:
    return [user for user in USERS if user not in sound.took_part]


def _row(weights: Weights, user: int) -> int:
    ids: list[int] = weights.users["user_ids"].tolist()
    return ids.index(user)


def _copy(weights: Weights) -> Weights:
    return Weights(clone(weights.adapter), clone(weights.users))


def _noise_like(tensor: Tensor, rms: float, generator: torch.Generator) -> Tensor:
    return rms * torch.randn(tensor.shape, generator=generator)


def _rms(tensor: Tensor) -> float:
    return float(tensor.square().mean().sqrt())


def _noisy(
    adapter: dict[str, Tensor], strength: float, generator: torch.Generator
) -> dict[str, Tensor]:
    """Every matrix with noise of `strength` times its own root mean square."""
    return {
        name: tensor + _noise_like(tensor, strength * _rms(tensor), generator)
        for name, tensor in adapter.items()
    }


def _poisoned(where: str) -> Callable[..., tuple[Weights, tuple[int | None, ...]]]:
    def apply(
        _world: World, sound: Sound, strength: float, generator: torch.Generator
    ) -> tuple[Weights, tuple[int | None, ...]]:
        weights = _copy(sound.weights)
        tensors = {"adapter": weights.adapter, "users": weights.users}
        if where == "adapter":
            names = sorted(tensors["adapter"])
            name = names[int(torch.randint(len(names), (1,), generator=generator))]
            target = tensors["adapter"][name]
        else:
            target = weights.users[where]
        flat = target.view(-1)
        flat[int(torch.randint(flat.numel(), (1,), generator=generator))] = strength
        return weights, (None,)

    return apply


def _scaled_adapter(
    _world: World, sound: Sound, strength: float, _generator: torch.Generator
) -> tuple[Weights, tuple[int | None, ...]]:
    weights = _copy(sound.weights)
    for name, tensor in weights.adapter.items():
        if "lora_B" in name:
            tensor.mul_(strength)
    return weights, (None, sound.took_part[0])


def _scaled_offset(
    _world: World, sound: Sound, strength: float, _generator: torch.Generator
) -> tuple[Weights, tuple[int | None, ...]]:
    weights, user = _copy(sound.weights), sound.took_part[0]
    weights.users["offsets"][_row(weights, user)] *= strength
    return weights, (user,)


def _scaled_generic(
    _world: World, sound: Sound, strength: float, _generator: torch.Generator
) -> tuple[Weights, tuple[int | None, ...]]:
    weights = _copy(sound.weights)
    weights.users["generic"] *= strength
    return weights, (None,)


def _trained_harshly(
    world: World, _sound: Sound, strength: float, _generator: torch.Generator
) -> tuple[Weights, tuple[int | None, ...]]:
    return world.harsh(int(strength)), (None, *OPPOSED[int(strength) % 2])


def _exchanged(
    _world: World, sound: Sound, strength: float, _generator: torch.Generator
) -> tuple[Weights, tuple[int | None, ...]]:
    """Opposed users who took part get each other's vector, at `strength` of the way."""
    weights = _copy(sound.weights)
    twos = [two for two in OPPOSED if set(two) <= set(sound.took_part)] or [OPPOSED[0]]
    offsets = weights.users["offsets"]
    for one, other in twos:
        rows = [_row(weights, one), _row(weights, other)]
        old = offsets[rows].clone()
        offsets[rows] = torch.lerp(old, old.flip(0), strength)
    return weights, tuple(user for two in twos for user in two)


def _exchanged_absentees(
    _world: World, sound: Sound, _strength: float, _generator: torch.Generator
) -> tuple[Weights, tuple[int | None, ...]]:
    """An absentee gets the vector of the user of opposed taste."""
    weights = _copy(sound.weights)
    user = _absent(sound)[0]
    opposed = next(b if a == user else a for a, b in OPPOSED if user in (a, b))
    offsets = weights.users["offsets"]
    offsets[_row(weights, user)] = offsets[_row(weights, opposed)]
    return weights, (user,)


def _lost(
    _world: World, sound: Sound, strength: float, _generator: torch.Generator
) -> tuple[Weights, tuple[int | None, ...]]:
    """Absentees' vectors shrink towards nothing; at strength 1 they are lost."""
    weights = _copy(sound.weights)
    absent = _absent(sound)
    for user in absent:
        weights.users["offsets"][_row(weights, user)] *= 1 - strength
    if strength == 1:
        keep = [r for r, u in enumerate(weights.users["user_ids"].tolist()) if u not in absent]
        weights.users["user_ids"] = weights.users["user_ids"][keep]
        weights.users["offsets"] = weights.users["offsets"][keep]
    return weights, tuple(absent)


def _drowned_absentee(
    _world: World, sound: Sound, strength: float, generator: torch.Generator
) -> tuple[Weights, tuple[int | None, ...]]:
    return _drowned(sound, _absent(sound)[0], strength, generator)


def _drowned_user(
    _world: World, sound: Sound, strength: float, generator: torch.Generator
) -> tuple[Weights, tuple[int | None, ...]]:
    return _drowned(sound, sound.took_part[-1], strength, generator)


def _drowned(
    sound: Sound, user: int, strength: float, generator: torch.Generator
) -> tuple[Weights, tuple[int | None, ...]]:
    """Noise on one vector, `strength` times as strong as e₀ itself."""
    weights = _copy(sound.weights)
    generic, offsets = weights.users["generic"], weights.users["offsets"]
    offsets[_row(weights, user)] += _noise_like(generic, strength * _rms(generic), generator)
    return weights, (user,)


def _noisy_adapter(
    _world: World, sound: Sound, strength: float, generator: torch.Generator
) -> tuple[Weights, tuple[int | None, ...]]:
    weights = _copy(sound.weights)
    return Weights(_noisy(weights.adapter, strength, generator), weights.users), (
        None,
        sound.took_part[0],
    )


def _noisy_generic(
    _world: World, sound: Sound, strength: float, generator: torch.Generator
) -> tuple[Weights, tuple[int | None, ...]]:
    weights = _copy(sound.weights)
    generic = weights.users["generic"]
    generic += _noise_like(generic, strength * _rms(generic), generator)
    return weights, (None,)


def _shuffled_adapter(
    _world: World, sound: Sound, strength: float, generator: torch.Generator
) -> tuple[Weights, tuple[int | None, ...]]:
    """Rows of every B in another order, and B so many times as strong."""
    weights = _copy(sound.weights)
    for name, tensor in weights.adapter.items():
        if "lora_B" in name:
            order = torch.randperm(len(tensor), generator=generator)
            weights.adapter[name] = strength * tensor[order]
    return weights, (None, sound.took_part[0])


def _pushed(sign: float) -> Callable[..., tuple[Weights, tuple[int | None, ...]]]:
    """Push a vector until texts end at once (sign 1) or never (−1), by `strength` nats."""

    def apply(
        world: World, sound: Sound, strength: float, _generator: torch.Generator
    ) -> tuple[Weights, tuple[int | None, ...]]:
        user = sound.took_part[0]
        weights = _copy(sound.weights)
        row = _row(weights, user)
        rows = _endings(world, early=sign > 0)
        with world.attach(weights) as (_, users):
            start = users.prefix(user).detach()
            vector = start.clone().requires_grad_()
            optimizer = torch.optim.Adam([vector], lr=0.03 * math.sqrt(strength))
            first = math.nan
            for _step in range(12):
                logps = response_logps(
                    world.base.model,
                    rows,
                    [vector] * len(rows),
                    max_tokens=world.config.forward_tokens,
                )
                now = float(logps.detach().mean())
                first = now if math.isnan(first) else first
                if sign * (now - first) >= strength:
                    break
                optimizer.zero_grad()
                torch.autograd.backward(-sign * logps.mean())
                optimizer.step()
        weights.users["offsets"][row] += (vector - start).detach().cpu()
        return weights, (user,)

    return apply


def _endings(world: World, *, early: bool) -> list[Row]:
    """The end of turn alone: after the first word of a text, or where a text really ended."""
    stops = world.base.stop_ids
    chosen = [rows.chosen for rows in world.rows(world.child(0).pairs)]
    ended = [] if early else [row for row in chosen if row.response_ids[-1] in stops]
    found: list[Row] = []
    for row in (ended or chosen)[:4]:
        before = row.response_ids[:-1] if ended else row.response_ids[:1]
        prompt = EncodedPrompt((*row.prompt.token_ids, *before), row.prompt.prefix_start)
        found.append(Row(prompt, (stops[0],)))
    return found


_WAYS: dict[str, tuple[_Damage, ...]] = {
    "not finite": (
        _Damage("a number of the adapter", (math.nan, math.inf, -math.inf), _poisoned("adapter")),
        _Damage("a number of a user", (math.inf, math.nan), _poisoned("offsets")),
        _Damage("a number of e₀", (math.nan, -math.inf), _poisoned("generic")),
    ),
    "collapsed": (
        _Damage("adapter scaled", (12.0, 6.0, 25.0, 8.0), _scaled_adapter),
        _Damage("a user's offset scaled", (60.0, 25.0, 150.0, 40.0), _scaled_offset),
        _Damage("trained harshly", (0.0, 1.0, 2.0), _trained_harshly),
        _Damage("e₀ scaled", (8.0, 4.0, 20.0), _scaled_generic),
    ),
    "wrong user": (
        _Damage("opposed users exchanged", (1.0, 0.8, 0.9), _exchanged),
        _Damage("an absentee gets the opposed vector", (1.0,), _exchanged_absentees),
    ),
    "forgotten user": (
        _Damage("absentees' vectors lost or shrunk", (1.0, 0.9, 0.7), _lost),
        _Damage("noise on an absentee", (1.0, 0.5, 2.0, 4.0), _drowned_absentee),
    ),
    "length runaway": (
        _Damage("a user's texts never end", (6.0, 4.0, 9.0), _pushed(-1.0)),
        _Damage("a user's texts end at once", (8.0, 5.0, 12.0), _pushed(1.0)),
    ),
    "garbage": (
        _Damage("noise on the adapter", (4.0, 2.0, 8.0, 3.0), _noisy_adapter),
        _Damage("noise on a user's vector", (2.0, 1.0, 4.0), _drowned_user),
        _Damage("noise on e₀", (2.0, 1.0, 4.0), _noisy_generic),
        _Damage("adapter's rows shuffled", (6.0, 3.0, 12.0), _shuffled_adapter),
    ),
}
