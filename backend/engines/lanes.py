"""Rows that share weights, decoded together: requests on one side, tensors on the other.

A lane serves one version, or the base model, and either rows that somebody waits for or rows that
nobody waits for, so that these can stand aside. While an old version's rows finish, a new version's
lane runs beside it, step by step in turn. Knows nothing of queues and threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain

import torch
from transformers import PreTrainedModel

from backend.engines.base import Sampling
from backend.engines.calls import Call, Row
from backend.engines.versions import LoadedVersion
from backend.engines.weights import Weights
from trainer.decoding import Batch
from trainer.prompting import embed
from trainer.sampling import RowSampler, draw


class Lane:
    """The rows decoding under one set of weights."""

    def __init__(
        self,
        model: PreTrainedModel,
        weights: Weights,
        count: Callable[[int], None],
        new_batch: Callable[[], Batch],
        *,
        someone_waits: bool,
    ) -> None:
        """Begin without rows.

        Args:
            count: hears of every step how many tokens it made.
            new_batch: makes a batch without rows.
        """
        self.weights = weights
        self.someone_waits = someone_waits
        self._count = count
        self._model = model
        self._new_batch = new_batch
        self._batch = new_batch()
        # A GPU decodes the next token while the texts are put together here; on a CPU whoever
        # reads them would wait for it.
        self._overlaps = model.device.type == "cuda"
        self._rows: list[tuple[Call, Row, RowSampler]] = []

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def calls(self) -> list[Call]:
        """The calls that have rows here, each once."""
        return list(dict.fromkeys(call for call, _, _ in self._rows))

    def admit(self, call: Call, rows: Sequence[Row]) -> None:
        """Let rows of `call` join; equal prompts are read once. The weights must be in place."""
        groups: dict[object, list[Row]] = {}
        for row in rows:
            groups.setdefault(row.prompt_key, []).append(row)
        prompts = [self._embed(group[0], call.version) for group in groups.values()]
        self._batch.join(prompts, [len(group) for group in groups.values()])
        for row in chain.from_iterable(groups.values()):
            self._rows.append((call, row, _sampler(row.request.sampling)))

    def step(self) -> None:
        """One token for every row, then those that are done leave.

        Raises:
            ArithmeticError: the model's logits are not finite.
        """
        self.let_go()
        if not self._rows:
            return
        logits = self._batch.logits
        # What is not finite comes through as least or most: one pass, where `isfinite` takes four.
        if not bool(torch.stack(torch.aminmax(logits)).isfinite().all()):
            raise ArithmeticError("the model produced numbers that are not finite")
        tokens = draw(logits, [sampler for _, _, sampler in self._rows])
        for (_, row, _), token in zip(self._rows, tokens.tolist(), strict=True):
            row.token_ids.append(token)
        self._count(len(self._rows))
        stay = [index for index, (_, row, _) in enumerate(self._rows) if not row.complete]
        calls = self._leave(stay)
        if not self._overlaps:
            _show(calls)
        if stay:
            self._batch.advance(tokens[stay])
            for _, _, sampler in self._rows:
                sampler.prepare(logits.shape[-1])
        if self._overlaps:
            _show(calls)

    def let_go(self) -> None:
        """Rows whose call was cancelled, or failed elsewhere, leave with what they have."""
        wanted = [
            index
            for index, (call, _, _) in enumerate(self._rows)
            if not (call.generation.cancelled or call.generation.over)
        ]
        self._leave(wanted)

    def _leave(self, stay: Sequence[int]) -> list[Call]:
        """Close all rows but those at `stay`; the calls there were before."""
        calls = self.calls
        if len(stay) < len(self._rows):
            for index in set(range(len(self._rows))).difference(stay):
                call, row, _ = self._rows[index]
                call.close_row(row)
            self._batch.keep(stay)
            self._rows = [self._rows[index] for index in stay]
        return calls

    def drop_all(self) -> list[Call]:
        """Forget every row; the calls they belonged to."""
        calls = self.calls
        self._rows = []
        self._batch = self._new_batch()
        return calls

    def _embed(self, row: Row, version: LoadedVersion) -> torch.Tensor:
        """Input embeddings (T, H) of a row's prompt with its user vector in place."""
        prefix = version.vector(row.request.condition, row.request.user_id, row.request.style)
        ids = torch.tensor([row.prompt.token_ids], device=self._model.device)
        return embed(self._model.get_input_embeddings(), ids, [row.prompt.prefix_start], [prefix])[
            0
        ]


def _show(calls: Sequence[Call]) -> None:
    for call in calls:
        call.show()


def _sampler(sampling: Sampling) -> RowSampler:
    return RowSampler(temperature=sampling.temperature, top_p=sampling.top_p, seed=sampling.seed)
