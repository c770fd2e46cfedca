"""The styled user model: e₀, K directions of style, and per user a style record and an offset.

    e_u = e₀ + Σ_k a_k(record_u) · d_k + o_u        a in `trainer.style_records`

d_k leads from e₀ to a prefix under which the model answers in style k (`trainer.distilling`). Pairs
are made along these directions, so a user's choices say which of them is theirs: a dozen are enough
to find one among ten, where P · H numbers would need hundreds. P-DPO learns o_u, what is that
user's beyond every style. The cluster model of arXiv 2402.05133 (section 4) with clusters known
beforehand and each user's weights inferred, not descended to.

A record is counted from choices and handed in (`records`); o_u = 0 and no record at the start: a
new user is exactly e₀. Knows nothing of optimizers, rounds, files or people.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from trainer.own_numbers import OwnNumbers
from trainer.user_vectors import UserVectors, served_vectors, styled


class StyledUserModel:
    """e_u = e₀ + Σ_k a_k(record_u) · d_k + o_u; implements `trainer.user_models.UserModel`.

    Args:
        generic: e₀, (P, H).
        directions: d, (K, P, H).
        records: user_id → (K + 1, 2), how often each style won and lost, no wish first.
        offsets: user_id → o_u, (P, H), of every user met so far.
        learning: users whose offset this round may change; others are carried over untouched.
    """

    def __init__(
        self,
        generic: Tensor,
        directions: Tensor,
        records: Mapping[int, Tensor],
        offsets: Mapping[int, Tensor],
        learning: Iterable[int],
    ) -> None:
        self._generic = nn.Parameter(generic.detach().clone())
        self._directions = nn.Parameter(directions.detach().clone())
        self._records = dict(records)
        self._stranger = torch.zeros(len(directions) + 1, 2)
        self._own = OwnNumbers(torch.zeros_like(generic), offsets, learning)

    def prefix(self, user_id: int | None) -> Tensor:
        """e_u, (P, H) fp32; e₀ for None and for a user never met."""
        offset = self._own.of(user_id)
        if offset is None:
            return self._generic
        return styled(self._generic, self._directions, self._record(user_id), offset)

    def unlearnt(self, user_id: int) -> Tensor:
        """e₀ and the styles counted, (P, H) fp32; e₀ for a user never met."""
        none = torch.zeros_like(self._generic)
        return styled(self._generic, self._directions, self._record(user_id), none)

    def shared_parameters(self) -> dict[str, nn.Parameter]:
        """`generic`: e₀ (P, H); `directions`: d (K, P, H)."""
        return {"generic": self._generic, "directions": self._directions}

    def own_parameters(self) -> dict[str, nn.Parameter]:
        """One o_u (P, H) per learning user, `user.<id>`."""
        return self._own.parameters()

    def tensors(self) -> dict[str, Tensor]:
        """generic, directions (K, P, H), user_ids (N,), records (N, K + 1, 2), offsets; CPU."""
        own = self._own.tensors("offsets")
        records = [self._record(user) for user in own["user_ids"].tolist()]
        return {
            "generic": self._generic.detach().cpu().clone(),
            "directions": self._directions.detach().cpu().clone(),
            "records": torch.stack(records)
            if records
            else self._stranger.new_zeros(0, *self._stranger.shape),
            **own,
        }

    def vectors(self) -> UserVectors:
        """e₀ and every e_u, detached."""
        return served_vectors(self.tensors())

    def _record(self, user_id: int | None) -> Tensor:
        return self._stranger if user_id is None else self._records.get(user_id, self._stranger)


def styled_from_tensors(
    tensors: Mapping[str, Tensor],
    learning: Iterable[int],
    device: torch.device,
    records: Mapping[int, Tensor],
) -> StyledUserModel:
    """The model `StyledUserModel.tensors` was called on, on `device`.

    Args:
        records: newer ones of some of the learning users.

    Raises:
        ValueError: a record is not of these styles.
    """
    users = tensors["user_ids"].tolist()
    of_one = tensors["records"].shape[1:]
    if any(record.shape != of_one for record in records.values()):
        raise ValueError(f"style records must be {tuple(of_one)}: the styles have changed")
    known = dict(zip(users, tensors["records"], strict=True)) | dict(records)
    offsets = zip(users, tensors["offsets"].to(device), strict=True)
    generic, directions = tensors["generic"].to(device), tensors["directions"].to(device)
    return StyledUserModel(generic, directions, known, dict(offsets), learning)
