"""The styled user model: e₀, K directions of style, and per user shares of them and an offset.

    e_u = e₀ + Σ_k a_k(u) · d_k + o_u

d_k leads from e₀ to a prefix under which the model answers in style k (`trainer.distilling`). Pairs
are made along these directions, so a user's choices say which of them is theirs: a dozen are enough
to find one among ten, where P · H numbers would need hundreds. P-DPO learns o_u, what is that
user's beyond every style. The cluster model of arXiv 2402.05133 (section 4) with clusters known
beforehand and each user's weights inferred, not descended to.

Shares are inferred from choices and handed in; a stranger's are 0, and so is o_u at the start: a
new user is exactly e₀. Knows nothing of optimizers, rounds, files or people.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from trainer.own_numbers import OwnNumbers
from trainer.user_vectors import UserVectors, served_vectors, styled


class StyledUserModel:
    """e_u = e₀ + Σ_k a_k(u) · d_k + o_u; implements `trainer.user_models.UserModel`.

    Args:
        generic: e₀, (P, H).
        directions: d, (K, P, H).
        shares: user_id → a(u), (K,), how much of each style.
        offsets: user_id → o_u, (P, H), of every user met so far.
        learning: users whose offset this round may change; others are carried over untouched.
    """

    def __init__(
        self,
        generic: Tensor,
        directions: Tensor,
        shares: Mapping[int, Tensor],
        offsets: Mapping[int, Tensor],
        learning: Iterable[int],
    ) -> None:
        self._generic = nn.Parameter(generic.detach().clone())
        self._directions = nn.Parameter(directions.detach().clone())
        self._shares = dict(shares)
        self._stranger = torch.zeros(len(directions))
        self._own = OwnNumbers(torch.zeros_like(generic), offsets, learning)

    def prefix(self, user_id: int | None) -> Tensor:
        """e_u, (P, H) fp32; e₀ for None and for a user never met."""
        offset = self._own.of(user_id)
        if offset is None:
            return self._generic
        return styled(self._generic, self._directions, self._share(user_id), offset)

    def unlearnt(self, user_id: int) -> Tensor:
        """e₀ and the styles, (P, H) fp32; e₀ for a user never met."""
        none = torch.zeros_like(self._generic)
        return styled(self._generic, self._directions, self._share(user_id), none)

    def unlearn(self, user_id: int) -> None:
        """o_u = 0 again."""
        self._own.reset(user_id)

    def reference(self, user_id: int) -> Tensor:
        """What `unlearnt` says: styles are no more learnt from pairs than the base model is."""
        return self.unlearnt(user_id).detach()

    def shared_parameters(self) -> dict[str, nn.Parameter]:
        """`generic`: e₀ (P, H); `directions`: d (K, P, H)."""
        return {"generic": self._generic, "directions": self._directions}

    def own_parameters(self) -> dict[str, nn.Parameter]:
        """One o_u (P, H) per learning user, `user.<id>`."""
        return self._own.parameters()

    def tensors(self) -> dict[str, Tensor]:
        """generic, directions (K, P, H), user_ids (N,), shares (N, K), offsets; CPU."""
        own = self._own.tensors("offsets")
        shares = [self._share(user) for user in own["user_ids"].tolist()]
        return {
            "generic": self._generic.detach().cpu().clone(),
            "directions": self._directions.detach().cpu().clone(),
            "shares": torch.stack(shares)
            if shares
            else self._stranger.new_zeros(0, len(self._stranger)),
            **own,
        }

    def vectors(self) -> UserVectors:
        """e₀ and every e_u, detached."""
        return served_vectors(self.tensors())

    def _share(self, user_id: int | None) -> Tensor:
        return self._stranger if user_id is None else self._shares.get(user_id, self._stranger)


def styled_from_tensors(
    tensors: Mapping[str, Tensor],
    learning: Iterable[int],
    device: torch.device,
    shares: Mapping[int, Tensor],
) -> StyledUserModel:
    """The model `StyledUserModel.tensors` was called on, on `device`.

    Args:
        shares: newer ones of some of the learning users.

    Raises:
        ValueError: there are more or fewer shares than styles.
    """
    users = tensors["user_ids"].tolist()
    of_one = tensors["shares"].shape[1:]
    if any(share.shape != of_one for share in shares.values()):
        raise ValueError(f"style shares must be {tuple(of_one)}: the styles have changed")
    known = dict(zip(users, tensors["shares"], strict=True)) | dict(shares)
    offsets = zip(users, tensors["offsets"].to(device), strict=True)
    generic, directions = tensors["generic"].to(device), tensors["directions"].to(device)
    return StyledUserModel(generic, directions, known, dict(offsets), learning)
