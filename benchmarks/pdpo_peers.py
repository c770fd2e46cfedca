"""What the step is compared with, written from METHOD's description: the authors' scheme.

Rows are [prefix | prompt | response], chosen and rejected in one padded batch, all logits of all
positions, both terms, and π_ref run again at every step in the same way: twelve passes over padded
rows (four forward, four backward, four of the reference). With `cached` the reference is looked up
instead: the plain form with two rows a pair, eight passes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from trainer.adapter import AttachedAdapter
from trainer.batching import PairRows, Row
from trainer.config import TrainConfig
from trainer.language_model import LanguageModel
from trainer.learning import pair_tokens, reference_logps
from trainer.losses import PairLogps, p_dpo
from trainer.prompting import embed
from trainer.scoring import autocast
from trainer.user_models import UserModel


class AuthorsScheme:
    """The step as the published code takes it, on our model, adapter, users and loss.

    Args:
        references: cached log π_ref; None runs the reference at every step.
    """

    def __init__(
        self,
        base: LanguageModel,
        adapter: AttachedAdapter,
        users: UserModel,
        config: TrainConfig,
        references: Mapping[int, float] | None = None,
    ) -> None:
        self._base = base
        self._adapter = adapter
        self._users = users
        self._config = config
        self._references = references
        vectors = {**users.shared_parameters(), **users.own_parameters()}
        self._optimizer = torch.optim.AdamW(
            [
                {"params": list(adapter.parameters.values()), "lr": config.learning_rate_adapter},
                {"params": list(vectors.values()), "lr": config.learning_rate_vector},
            ],
            weight_decay=0.0,
        )

    def step(self, pairs: Sequence[PairRows]) -> float:
        """One optimizer step; the mean loss."""
        self._optimizer.zero_grad()
        device = self._base.device
        mine: list[Tensor | None] = [self._users.prefix(p.pair.user_id) for p in pairs]
        generic: list[Tensor | None] = [self._users.prefix(None)] * len(pairs)
        terms = [self._pair_logps(pairs, prefixes) for prefixes in (mine, generic)]
        if self._references is None:
            with torch.no_grad(), self._adapter.disabled():
                # The published code runs it for each of the two terms, with the same result.
                reference = self._reference(pairs)
                reference = self._reference(pairs)
        else:
            reference = reference_logps(pairs, [self._references] * len(pairs), device)
        losses = p_dpo(terms[0], terms[1], reference, pair_tokens(pairs, device), self._config)
        loss = losses.loss.mean()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(
            list(self._adapter.parameters.values()), self._config.clip_norm_adapter
        )
        self._optimizer.step()
        return float(loss.detach())

    def _pair_logps(
        self, pairs: Sequence[PairRows], prefixes: Sequence[Tensor | None]
    ) -> PairLogps:
        rows = [p.chosen for p in pairs] + [p.rejected for p in pairs]
        logps = self._logps(rows, [*prefixes, *prefixes]).view(2, -1)
        return PairLogps(logps[0], logps[1])

    def _reference(self, pairs: Sequence[PairRows]) -> PairLogps:
        rows = [p.reference_chosen for p in pairs] + [p.reference_rejected for p in pairs]
        logps = self._logps(rows, [None] * len(rows)).view(2, -1)
        return PairLogps(logps[0], logps[1])

    def _logps(self, rows: Sequence[Row], prefixes: Sequence[Tensor | None]) -> Tensor:
        """(rows,) summed log-probs from every logit of a right-padded batch."""
        model, device = self._base.model, self._base.device
        width = max(len(row.prompt.token_ids) + len(row.response_ids) for row in rows)
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        read, answer = torch.zeros_like(ids), torch.zeros_like(ids)
        for at, row in enumerate(rows):
            whole = (*row.prompt.token_ids, *row.response_ids)
            ids[at, : len(whole)] = torch.tensor(whole)
            read[at, : len(whole)] = 1
            answer[at, len(row.prompt.token_ids) : len(whole)] = 1
        starts = [row.prompt.prefix_start for row in rows]
        with autocast(model):
            inputs = embed(model.get_input_embeddings(), ids.to(device), starts, prefixes)
            logits = model(
                inputs_embeds=inputs, attention_mask=read.to(device), use_cache=False
            ).logits
        wide = torch.promote_types(logits.dtype, torch.float32)
        logps = logits[:, :-1].log_softmax(-1, dtype=wide)
        labels = ids[:, 1:].to(device)
        of_labels = logps.gather(2, labels[:, :, None]).squeeze(2)
        summed: Tensor = (of_labels * answer[:, 1:].to(device)).sum(1)
        return summed
