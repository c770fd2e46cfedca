"""Rows that share prompt and user vector → one packed sequence under a tree mask. Pure.

    [ prefix | prompt | response 1 | response 2 ]

Every response sees the prompt and itself, none sees another; positions start again behind the
prompt. So a pair reads its prompt once, and log-probs and gradients are those of two rows. Packs
are right-padded; nothing but padding sees padding.

Knows nothing of models, users and losses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.batching import Row
from trainer.prompting import EncodedPrompt

_SHARED = 0  # segment of prefix and prompt; responses are 1, 2, …
_PADDING = -1


@dataclass(frozen=True, slots=True)
class Pack:
    """One sequence to run.

    Attributes:
        prompt: what all its rows begin with.
        prefix: the user vector (P, H) of all its rows, None without one.
        rows: which rows it holds, as indices into the list that was packed.
        responses: their responses, in the same order.
    """

    prompt: EncodedPrompt
    prefix: Tensor | None
    rows: tuple[int, ...]
    responses: tuple[tuple[int, ...], ...]

    @property
    def length(self) -> int:
        """Input tokens: the last token of a response is predicted, never read."""
        return len(self.prompt.token_ids) + sum(max(0, len(r) - 1) for r in self.responses)


@dataclass(frozen=True, slots=True)
class PackBatch:
    """B packs as tensors.

    Attributes:
        ids: (B, T) token ids, right-padded with 0.
        position_ids: (B, T) places as each response alone would have them.
        segments: (B, T) which part of its pack a token belongs to, −1 for padding.
        positions: (N,) indices into the flattened (B·T,) places whose hidden state predicts a
            response token.
        labels: (N,) the response tokens themselves.
        rows: (N,) the row each belongs to.
    """

    ids: Tensor
    position_ids: Tensor
    segments: Tensor
    positions: Tensor
    labels: Tensor
    rows: Tensor

    @property
    def branches(self) -> bool:
        """Whether any pack holds more than one response; if not, plain causal attention does."""
        return bool((self.segments > 1).any())

    def mask(self, dtype: torch.dtype) -> Tensor:
        """(B, 1, T, T), added to attention scores: 0 where a token may look, else very negative."""
        width = self.ids.shape[1]
        earlier = torch.ones(width, width, dtype=torch.bool, device=self.ids.device).tril()
        of, at = self.segments[:, :, None], self.segments[:, None, :]
        seen = earlier & ((at == _SHARED) | (at == of))
        hidden = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
        return hidden.masked_fill(~seen, torch.finfo(dtype).min)[:, None]


def pack(rows: Sequence[Row], prefixes: Sequence[Tensor | None], *, max_tokens: int) -> list[Pack]:
    """Put rows together that have the very same prompt and prefix objects.

    Args:
        max_tokens: no pack of several rows becomes longer.
    """
    packs: list[Pack] = []
    open_pack: dict[tuple[int, int], int] = {}
    for index, (row, prefix) in enumerate(zip(rows, prefixes, strict=True)):
        key = (id(row.prompt), id(prefix))
        at = open_pack.get(key)
        if at is not None:
            old = packs[at]
            grown = Pack(
                old.prompt,
                old.prefix,
                (*old.rows, index),
                (*old.responses, row.response_ids),
            )
            if grown.length <= max_tokens:
                packs[at] = grown
                continue
        open_pack[key] = len(packs)
        packs.append(Pack(row.prompt, prefix, (index,), (row.response_ids,)))
    return packs


def pad_packs(packs: Sequence[Pack], device: torch.device) -> PackBatch:
    """Right-padded tensors of `packs` (at least one)."""
    width = max(pack.length for pack in packs)
    ids = torch.zeros(len(packs), width, dtype=torch.long)
    places = torch.zeros(len(packs), width, dtype=torch.long)
    segments = torch.full((len(packs), width), _PADDING)
    positions: list[int] = []
    labels: list[int] = []
    owners: list[int] = []
    for index, one in enumerate(packs):
        prompt = len(one.prompt.token_ids)
        ids[index, :prompt] = torch.tensor(one.prompt.token_ids)
        places[index, :prompt] = torch.arange(prompt)
        segments[index, :prompt] = _SHARED
        start = prompt
        for branch, (row, response) in enumerate(zip(one.rows, one.responses, strict=True), 1):
            read = response[:-1]
            end = start + len(read)
            ids[index, start:end] = torch.tensor(read, dtype=torch.long)
            places[index, start:end] = torch.arange(prompt, prompt + len(read))
            segments[index, start:end] = branch
            # The first response token is predicted at the end of the prompt.
            positions.extend(index * width + at for at in (prompt - 1, *range(start, end)))
            labels.extend(response)
            owners.extend([row] * len(response))
            start = end
    return PackBatch(
        ids=ids.to(device),
        position_ids=places.to(device),
        segments=segments.to(device),
        positions=torch.tensor(positions, device=device),
        labels=torch.tensor(labels, device=device),
        rows=torch.tensor(owners, device=device),
    )
