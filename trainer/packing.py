"""Rows that begin alike → one tree of tokens, flat, without padding. Pure.

    [ user vector and head of the template | prompt 1 | response | response | prompt 2 | … ]

Rows under one user vector share whatever they have in common from the left: the vector itself, the
prompt, the first words of both responses. A token sees what stands before it in its own rows and
nothing else, and its position is its place there. So what is shared is read once, and log-probs
and gradients are those of each row alone.

Knows nothing of models, users and losses.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from trainer.batching import Row
from trainer.transfer import to_device

_Key = tuple[int, ...]
# Short runs beside each other are attended to at once: a prompt and its responses cost less in one
# product with some of it hidden than in three.
_TOGETHER = 150  # tokens
_ALIGNED = 16  # numbers


@dataclass(frozen=True, slots=True)
class Segment:
    """Neighbouring tokens whose attention is computed at once.

    Attributes:
        start, end: its N places in the flat sequence.
        before: what all its tokens see beside each other, as places from the left; neighbours are
            joined.
        hidden: (N, N) bool, which of its places a place does not see; at least the later ones.
    """

    start: int
    end: int
    before: tuple[tuple[int, int], ...]
    hidden: Tensor


class _Run(NamedTuple):
    """Tokens that are in the same rows, and the places before them in these rows."""

    start: int
    end: int
    before: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Forest:
    """Some rows as one flat sequence of N tokens, of which M states predict something.

    Attributes:
        ids: (N,) token ids; the places of a user vector hold an arbitrary id.
        position_ids: (N,) places as each row alone would have them.
        segments: in order; together they cover the sequence.
        prefixes: each user vector (P, H) with the place it begins at.
        positions: (M,) places whose state predicts a response token.
        labels: (M,) the response tokens themselves.
        sums: (2, L) which of the M belongs to which row, as pairs (m, index of the row).
    """

    ids: Tensor
    position_ids: Tensor
    segments: tuple[Segment, ...]
    prefixes: tuple[tuple[int, Tensor], ...]
    positions: Tensor
    labels: Tensor
    sums: Tensor

    @property
    def branches(self) -> bool:
        """Whether a token stands before one that must not see it; if not, causal attention does."""
        joined = all(one.before == ((0, one.start),) for one in self.segments[1:])
        return not joined or any(bool(one.hidden.tril(-1).any()) for one in self.segments)

    def mask(self, dtype: torch.dtype) -> Tensor:
        """(1, 1, N, N), added to attention scores: 0 where a token may look, else very negative."""
        count = len(self.ids)
        seen = torch.zeros(count, count, dtype=torch.bool)
        for one in self.segments:
            seen[one.start : one.end, one.start : one.end] = ~one.hidden
            for start, end in one.before:
                seen[one.start : one.end, start:end] = True
        hidden = (~seen).to(self.ids.device, non_blocking=True)
        # Rows that begin at multiples of 16: else CUDA's attention copies the mask, layer by layer.
        stride = -(-count // _ALIGNED) * _ALIGNED
        mask = torch.zeros(count, stride, dtype=dtype, device=hidden.device)[:, :count]
        return mask.masked_fill_(hidden, torch.finfo(dtype).min)[None, None]


def causal(count: int) -> Segment:
    """A row by itself: each of its places sees those before it."""
    return Segment(0, count, (), torch.ones(count, count, dtype=torch.bool).triu_(1))


def tree_tokens(rows: Sequence[Row], prefixes: Sequence[Tensor | None]) -> int:
    """How many tokens the rows come to as one forest."""
    keys = sorted(_keys(rows, prefixes))
    return sum(len(key) for key in keys) - sum(_alike(*two) for two in pairwise(keys))


def pack(
    rows: Sequence[Row], prefixes: Sequence[Tensor | None], *, max_tokens: int, device: torch.device
) -> list[Forest]:
    """Forests of at most `max_tokens` tokens (or one row) that hold each row once.

    Args:
        prefixes: per row the user vector (P, H), None without one. Only rows with the very same
            tensor share it.
    """
    keys = _keys(rows, prefixes)
    forests: list[list[int]] = []
    used = 0
    before: _Key = ()
    for index in sorted(range(len(rows)), key=keys.__getitem__):
        more = len(keys[index]) - _alike(before, keys[index])
        if forests and used + more <= max_tokens:
            forests[-1].append(index)
            used += more
        else:
            forests.append([index])
            used = len(keys[index])
        before = keys[index]
    return [_forest(some, rows, prefixes, keys, device) for some in forests]


def _keys(rows: Sequence[Row], prefixes: Sequence[Tensor | None]) -> list[_Key]:
    """What each row reads, place by place; every user vector's places get numbers of their own."""
    first: dict[int, int] = {}
    keys = []
    taken = 0
    for row, prefix in zip(rows, prefixes, strict=True):
        # The last token of a response is predicted, never read.
        ids = [*row.prompt.token_ids, *row.response_ids[:-1]]
        start = row.prompt.prefix_start
        if prefix is not None and start is not None:
            if id(prefix) not in first:
                taken += len(prefix)
                first[id(prefix)] = -taken
            lowest = first[id(prefix)]
            ids[start : start + len(prefix)] = range(lowest, lowest + len(prefix))
        keys.append(tuple(ids))
    return keys


def _alike(one: _Key, other: _Key) -> int:
    """How many places the two have in common from the left."""
    count = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        count += 1
    return count


def _forest(
    some: Sequence[int],
    rows: Sequence[Row],
    prefixes: Sequence[Tensor | None],
    keys: Sequence[_Key],
    device: torch.device,
) -> Forest:
    """The rows `some`, in the order of their keys: what two have in common, neighbours have."""
    ids: list[int] = []
    depths: list[int] = []
    parents: list[int] = []
    vectors: dict[int, Tensor] = {}
    predicted: dict[tuple[int, int], int] = {}
    sums: list[tuple[int, int]] = []
    path: list[int] = []
    before: _Key = ()
    for index in some:
        row, prefix, key = rows[index], prefixes[index], keys[index]
        shared = _alike(before, key)
        path = path[:shared]
        for depth in range(shared, len(key)):
            parents.append(path[-1] if path else -1)
            path.append(len(ids))
            ids.append(max(0, key[depth]))
            depths.append(depth)
        if prefix is not None and row.prompt.prefix_start is not None:
            vectors[path[row.prompt.prefix_start]] = prefix
        # The first response token is predicted at the end of the prompt.
        last = len(row.prompt.token_ids) - 1
        for depth, label in enumerate(row.response_ids, start=last):
            at = predicted.setdefault((path[depth], label), len(predicted))
            sums.append((at, index))
        before = key
    places, labels = [place for place, _ in predicted], [label for _, label in predicted]
    of_rows, rows_of = [at for at, _ in sums], [index for _, index in sums]
    lists = (ids, depths, places, labels, of_rows + rows_of)
    sent = to_device([number for some in lists for number in some], device)
    parts = torch.split(sent, [len(some) for some in lists])
    return Forest(
        ids=parts[0],
        position_ids=parts[1],
        segments=tuple(_segments(_runs(parents))),
        prefixes=tuple(vectors.items()),
        positions=parts[2],
        labels=parts[3],
        sums=parts[4].view(2, -1),
    )


def _runs(parents: Sequence[int]) -> list[_Run]:
    """The runs of a forest in which token t continues `parents[t]` (−1: it begins a tree)."""
    children = Counter(parents)
    begins = [
        at
        for at, parent in enumerate(parents)
        if at == 0 or parent != at - 1 or children[parent] > 1
    ]
    runs: list[_Run] = []
    before_end: dict[int, tuple[tuple[int, int], ...]] = {-1: ()}  # by a run's last place
    for start, end in pairwise([*begins, len(parents)]):
        before = before_end[parents[start]]
        runs.append(_Run(start, end, before))
        if before and before[-1][1] == start:
            before_end[end - 1] = (*before[:-1], (before[-1][0], end))
        else:
            before_end[end - 1] = (*before, (start, end))
    return runs


def _segments(runs: Sequence[_Run]) -> list[Segment]:
    """Neighbours among `runs` put together, as far as all see the same before the first of them."""
    groups: list[list[_Run]] = []
    for run in runs:
        first = groups[-1][0] if groups else run
        fits = groups and run.end - first.start <= _TOGETHER
        if fits and _up_to(first.start, run.before) == first.before:
            groups[-1].append(run)
        else:
            groups.append([run])
    return [
        Segment(group[0].start, group[-1].end, group[0].before, _hidden(group)) for group in groups
    ]


def _up_to(place: int, runs: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    return tuple((start, min(end, place)) for start, end in runs if start < place)


def _hidden(group: Sequence[_Run]) -> Tensor:
    """(N, N) bool: which places of neighbouring runs each of these places does not see."""
    first = group[0].start
    seen = torch.zeros(group[-1].end - first, group[-1].end - first, dtype=torch.bool)
    for run in group:
        for start, end in (*run.before, (run.start, run.end)):
            if end > first:
                places = slice(run.start - first, run.end - first)
                seen[places, max(start - first, 0) : end - first] = True
    return ~seen.tril_()
