"""Preference pairs → rows of token ids, in the order and the groups they are run in. Pure.

Knows nothing of models, of where prefixes come from and of the loss.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from trainer.config import TrainConfig
from trainer.prompting import EncodedPrompt, PromptFormat, personal_messages
from trainer.types import PreferencePair


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence to score: `[prefix | prompt | response]`.

    Attributes:
        prompt: token ids up to the response, with the place of the prefix.
        response_ids: the tokens whose log-probs are wanted.
    """

    prompt: EncodedPrompt
    response_ids: tuple[int, ...]

    @property
    def length(self) -> int:
        """Input tokens: the last response token is predicted, never read."""
        return len(self.prompt.token_ids) + max(0, len(self.response_ids) - 1)


def ending(row: Row) -> Row:
    """The last token alone, after everything before it; packed with `row` it costs nothing."""
    before = (*row.prompt.token_ids, *row.response_ids[:-1])
    return Row(EncodedPrompt(before, row.prompt.prefix_start), row.response_ids[-1:])


@dataclass(frozen=True, slots=True)
class PairRows:
    """What is scored for one pair. Both rows of a line below share one prompt object.

    Attributes:
        chosen, rejected: as served in the personal condition, the user's profile included.
        generic_chosen, generic_rejected: without it; without a profile the same as above.
        reference_chosen, reference_rejected: without room for a vector too, as π_ref reads them.
    """

    pair: PreferencePair
    chosen: Row
    rejected: Row
    generic_chosen: Row
    generic_rejected: Row
    reference_chosen: Row
    reference_rejected: Row


def pair_rows(pair: PreferencePair, prompts: PromptFormat) -> PairRows:
    """The rows of one pair.

    Raises:
        ValueError: a response is empty, or the prompt cannot be rendered.
    """
    if not pair.chosen.token_ids or not pair.rejected.token_ids:
        raise ValueError(f"pair {pair.pair_id} has an empty response")
    generic = prompts.encode(pair.messages, with_prefix=True)
    personal = generic
    if pair.profile:
        messages = personal_messages(pair.messages, pair.profile)
        personal = prompts.encode(messages, with_prefix=True)
    plain = prompts.encode(pair.messages, with_prefix=False)
    return PairRows(
        pair=pair,
        chosen=Row(personal, pair.chosen.token_ids),
        rejected=Row(personal, pair.rejected.token_ids),
        generic_chosen=Row(generic, pair.chosen.token_ids),
        generic_rejected=Row(generic, pair.rejected.token_ids),
        reference_chosen=Row(plain, pair.chosen.token_ids),
        reference_rejected=Row(plain, pair.rejected.token_ids),
    )


def epoch_batches(count: int, batch_size: int, *, seed: str) -> list[list[int]]:
    """Indices 0 … count−1 in an order fixed by `seed`, cut into batches."""
    order = list(range(count))
    random.Random(seed).shuffle(order)  # noqa: S311 - an order, not a secret
    return [order[start : start + batch_size] for start in range(0, count, batch_size)]


def passes(count: int, config: TrainConfig, *, seed: str) -> Iterator[tuple[int, list[int], bool]]:
    """A round's steps: epoch, indices of the batch, and whether what is shared learns too."""
    for epoch in range(config.epochs):
        for batch in epoch_batches(count, config.batch_pairs, seed=f"{seed}/{epoch}"):
            yield epoch, batch, epoch >= config.own_epochs
