"""Rounds in which one user takes no part: is what that user is served afterwards still as good?"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from benchmarks.learning_arms import Arm, served, train
from benchmarks.learning_judge import Prompts, answers, winrate
from benchmarks.learning_world import Asked, World
from trainer.batching import PairRows
from trainer.config import TrainConfig

FIRST = 1  # the user who stays away
_SEED = 41
_EACH = 4  # texts a prompt: the drop is to be told from what drawing them anew would change


def after_others(
    world: World,
    arm: Arm,
    pairs: Sequence[PairRows],
    references: Mapping[int, float],
    config: TrainConfig,
    *,
    rounds: int,
    per_round: int,
) -> Arm:
    """The arm after rounds on pairs of the others, one user a round, nothing of the first user's.

    Args:
        pairs: of everybody; those of a round are drawn from its user's.
    """
    others = sorted({rows.pair.user_id for rows in pairs} - {FIRST})
    for number in range(rounds):
        theirs = [rows for rows in pairs if rows.pair.user_id == others[number % len(others)]]
        rng = random.Random(f"others {config.seed} {number}")
        some = rng.sample(theirs, min(per_round, len(theirs)))
        seed = f"{config.seed}/others {number}"
        arm, _ = train(world.base, arm, some, references, config, seed=seed)
    return arm


def rate_of_user(
    world: World, prompts: Prompts, arm: Arm, config: TrainConfig, *, user: int, rule: str
) -> float:
    """How often the user's texts, single drafts, suit its rule better than generic ones, ties half.

    Args:
        prompts: answered several times each.
    """
    prompts = [prompt for prompt in prompts for _ in range(_EACH)]
    with served(world.base, arm, config) as vectors:
        writers = {"generic": vectors.generic, "mine": vectors.vector(user)}
        texts = answers(world, prompts, writers, seed=_SEED)
    asked = [Asked(prompt, None) for prompt in prompts]
    read = {name: world.read(asked, written) for name, written in texts.items()}
    return winrate(rule, read["mine"], read["generic"])
