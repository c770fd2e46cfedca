"""What a version keeps of its users, and the vectors it serves from that.

Three layouts of tensors; the names tell which (fp32 all, user_ids (N,) int64 ascending):

    individual   generic (P, H), user_ids, offsets (N, P, H)     e_u = generic + offset
    cluster      clusters (K, P, H), user_ids, weights (N, K)    e_u = softmax(weights) · clusters
    styled       generic, directions (K, P, H), user_ids, shares (N, K), offsets
                                       e_u = generic + shares · directions + offset

Serving needs nothing else, so it never learns which user model there is. Knows nothing of files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class UserVectors:
    """The vectors a version serves, whatever user model made them.

    Attributes:
        generic: e₀, (P, H) fp32.
        personal: user_id → e_u, (P, H) fp32.
        styles: the K vectors that pairs are made along, (K, P, H); None without such.
    """

    generic: Tensor
    personal: dict[int, Tensor]
    styles: Tensor | None = None

    def vector(self, user_id: int | None) -> Tensor:
        """e_u (P, H); e₀ for a user the version has not met and for None."""
        if user_id is None:
            return self.generic
        return self.personal.get(user_id, self.generic)


def mixed(weights: Tensor, clusters: Tensor) -> Tensor:
    """softmax(w) · V: (K,) and (K, P, H) → (P, H).

    The one place it is computed: the same weights give the same bits in training and serving.
    """
    return (weights.softmax(dim=0)[:, None, None] * clusters).sum(dim=0)


def styled(generic: Tensor, directions: Tensor, shares: Tensor, offset: Tensor) -> Tensor:
    """e₀ + Σ_k a_k · d_k + o_u: (P, H), (K, P, H), (K,) and (P, H) → (P, H).

    Likewise the one place.
    """
    shares = shares.to(directions.device)
    return generic + (shares[:, None, None] * directions).sum(dim=0) + offset


def served_vectors(tensors: Mapping[str, Tensor]) -> UserVectors:
    """e₀ and every e_u of a version's tensors, detached.

    Raises:
        KeyError, ValueError: a tensor is missing, or their lengths do not agree.
    """
    users = tensors["user_ids"].tolist()
    if "clusters" in tensors:
        clusters = tensors["clusters"]
        rows = zip(users, tensors["weights"], strict=True)
        return UserVectors(
            mixed(clusters.new_zeros(len(clusters)), clusters),
            {user: mixed(weights, clusters) for user, weights in rows},
        )
    generic = tensors["generic"]
    if "directions" in tensors:
        own = zip(users, tensors["shares"], tensors["offsets"], strict=True)
        directions = tensors["directions"]
        personal = {u: styled(generic, directions, shares, o) for u, shares, o in own}
        return UserVectors(generic, personal, generic + directions)
    offsets = zip(users, tensors["offsets"], strict=True)
    return UserVectors(generic, {user: generic + offset for user, offset in offsets})
