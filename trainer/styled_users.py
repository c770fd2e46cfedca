"""The styled user model: e₀ and K directions of style, K weights per user.

    e_u = e₀ + Σ_k a_uk · d_k        a_u = 1.3 w_u / (1 + Σ|w_u|), in `trainer.user_vectors`

w_u = 0 at the start: a new user is exactly e₀.

The cluster model of arXiv 2402.05133 (section 4) with what is shared known beforehand: d_k leads
from e₀ to a prefix under which the model answers in style k (`trainer.distilling`). Few choices are
enough for K numbers where P · H would need hundreds. Knows nothing of optimizers, rounds, files or
people; a user is an integer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from trainer.own_numbers import OwnNumbers
from trainer.user_vectors import UserVectors, served_vectors, styled


class StyledUserModel:
    """e_u = e₀ + Σ_k a_uk · d_k; implements `trainer.user_models.UserModel`.

    Args:
        generic: e₀, (P, H).
        directions: d, (K, P, H).
        weights: user_id → w_u, (K,), of every user met so far.
        learning: users whose weights this round may change; others are carried over untouched.
    """

    def __init__(
        self,
        generic: Tensor,
        directions: Tensor,
        weights: Mapping[int, Tensor],
        learning: Iterable[int],
    ) -> None:
        self._generic = nn.Parameter(generic.detach().clone())
        self._directions = nn.Parameter(directions.detach().clone())
        self._own = OwnNumbers(directions.new_zeros(len(directions)), weights, learning)

    def prefix(self, user_id: int | None) -> Tensor:
        """e_u, (P, H) fp32; e₀ for None and for a user never met."""
        own = self._own.of(user_id)
        return self._generic if own is None else styled(self._generic, own, self._directions)

    def shared_parameters(self) -> dict[str, nn.Parameter]:
        """`generic`: e₀ (P, H); `directions`: d (K, P, H)."""
        return {"generic": self._generic, "directions": self._directions}

    def own_parameters(self) -> dict[str, nn.Parameter]:
        """One w_u (K,) per learning user, `user.<id>`."""
        return self._own.parameters()

    def tensors(self) -> dict[str, Tensor]:
        """generic (P, H), directions (K, P, H), user_ids (N,) ascending, weights (N, K); CPU."""
        return {
            "generic": self._generic.detach().cpu().clone(),
            "directions": self._directions.detach().cpu().clone(),
            **self._own.tensors("weights"),
        }

    def vectors(self) -> UserVectors:
        """e₀ and every e_u, detached."""
        return served_vectors(self.tensors())


def styled_from_tensors(
    tensors: Mapping[str, Tensor], learning: Iterable[int], device: torch.device
) -> StyledUserModel:
    """The model `StyledUserModel.tensors` was called on, on `device`."""
    weights = zip(tensors["user_ids"].tolist(), tensors["weights"].to(device), strict=True)
    generic, directions = tensors["generic"].to(device), tensors["directions"].to(device)
    return StyledUserModel(generic, directions, dict(weights), learning)
