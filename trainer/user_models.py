"""User → prefix (P, H): the seam every user model fills, and the individual model.

Knows nothing of optimizers, rounds, files or people; a user is an integer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trainer.artifacts import UserVectors


class UserModel(Protocol):
    """Maps users to prefixes; some of its numbers are learned in a round."""

    def prefix(self, user_id: int | None) -> Tensor:
        """e_u, (P, H) fp32, differentiable; e₀ for None and for a user never met."""

    def named_parameters(self) -> dict[str, nn.Parameter]:
        """What a round learns, by names that stay the same through rounds.

        A parameter that belongs to one user is a tensor of its own: outside that user's batches
        its gradient is None, so that AdamW neither moves it nor advances its step count.
        """

    def tensors(self) -> dict[str, Tensor]:
        """`generic`, `user_ids` and `offsets` as `user_vectors.safetensors` keeps them."""

    def vectors(self) -> UserVectors:
        """The vectors as they would be served now, detached."""


class IndividualUserModel:
    """e_u = e₀ + o_u, with o_u = 0 at the start: a new user is exactly the generic user.

    Args:
        generic: e₀, (P, H).
        offsets: user_id → o_u, (P, H), of every user met so far.
        learning: users whose offset this round may change; others are carried over untouched.
    """

    def __init__(
        self, generic: Tensor, offsets: Mapping[int, Tensor], learning: Iterable[int]
    ) -> None:
        self._generic = nn.Parameter(generic.detach().clone())
        self._frozen = {user: offset.detach().clone() for user, offset in offsets.items()}
        self._learned = {
            user: nn.Parameter(self._frozen.pop(user, torch.zeros_like(generic)))
            for user in sorted(set(learning))
        }

    def prefix(self, user_id: int | None) -> Tensor:
        """e_u, (P, H) fp32; e₀ for None and for a user never met."""
        if user_id is None:
            return self._generic
        offset = self._learned.get(user_id, self._frozen.get(user_id))
        return self._generic if offset is None else self._generic + offset

    def named_parameters(self) -> dict[str, nn.Parameter]:
        """`generic` and one `user.<id>` per learning user."""
        users = {f"user.{user}": offset for user, offset in self._learned.items()}
        return {"generic": self._generic, **users}

    def tensors(self) -> dict[str, Tensor]:
        """generic (P, H), user_ids (N,) int64 ascending, offsets (N, P, H); on the CPU."""
        offsets = {**self._frozen, **self._learned}
        users = sorted(offsets)
        empty = self._generic.new_zeros(0, *self._generic.shape)
        stacked = torch.stack([offsets[user] for user in users]) if users else empty
        return {
            "generic": self._generic.detach().cpu().clone(),
            "user_ids": torch.tensor(users, dtype=torch.int64),
            "offsets": stacked.detach().cpu().clone(),
        }

    def vectors(self) -> UserVectors:
        """e₀ and every e_u, detached."""
        users = [*self._frozen, *self._learned]
        personal = {user: self.prefix(user).detach() for user in users}
        return UserVectors(self._generic.detach(), personal)


def individual_from_tensors(
    tensors: Mapping[str, Tensor], learning: Iterable[int], device: torch.device
) -> IndividualUserModel:
    """The model `IndividualUserModel.tensors` was called on, on `device`."""
    offsets = zip(tensors["user_ids"].tolist(), tensors["offsets"].to(device), strict=True)
    return IndividualUserModel(tensors["generic"].to(device), dict(offsets), learning)


def words_prefix(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str, prefix_tokens: int
) -> Tensor:
    """e₀ at the start: embeddings of the words of `text`, repeated or cut to (P, H) fp32.

    Raises:
        ValueError: `text` has no token.
    """
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    if not ids:
        raise ValueError("prefix_init_text has no token")
    repeated = (ids * prefix_tokens)[:prefix_tokens]
    with torch.no_grad():
        rows: Tensor = model.get_input_embeddings()(torch.tensor(repeated, device=model.device))
    return rows.float().cpu()
