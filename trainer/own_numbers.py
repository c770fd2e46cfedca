"""What belongs to single users in any user model: learned by some in a round, carried for the rest.

Knows nothing of how a prefix is made from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn


class OwnNumbers:
    """One tensor per user.

    Args:
        start: what a learning user begins with who was never met.
        known: user_id → numbers of every user met so far.
        learning: users whose numbers this round may change; others are carried over untouched.
    """

    def __init__(self, start: Tensor, known: Mapping[int, Tensor], learning: Iterable[int]) -> None:
        self._start = start
        self._frozen = {user: own.detach().clone() for user, own in known.items()}
        self._learned = {
            user: nn.Parameter(self._frozen.pop(user, start.clone()))
            for user in sorted(set(learning))
        }

    def of(self, user_id: int | None) -> Tensor | None:
        """The user's numbers; None for None and for a user never met."""
        if user_id is None:
            return None
        return self._learned.get(user_id, self._frozen.get(user_id))

    def parameters(self) -> dict[str, nn.Parameter]:
        """One tensor per learning user, `user.<id>`."""
        return {f"user.{user}": own for user, own in self._learned.items()}

    @torch.no_grad()
    def reset(self, user_id: int) -> None:
        """Put a learning user's numbers back to the start."""
        self._learned[user_id].copy_(self._start)

    def tensors(self, name: str) -> dict[str, Tensor]:
        """user_ids (N,) int64 ascending, and under `name` their numbers (N, …); on the CPU."""
        own = {**self._frozen, **self._learned}
        users = sorted(own)
        empty = self._start.new_zeros(0, *self._start.shape)
        stacked = torch.stack([own[user] for user in users]) if users else empty
        return {
            "user_ids": torch.tensor(users, dtype=torch.int64),
            name: stacked.detach().cpu().clone(),
        }
