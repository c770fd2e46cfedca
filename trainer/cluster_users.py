"""The cluster user model: K shared prefixes, K weights per user (arXiv 2402.05133, section 4).

    e_u = softmax(w_u) · V        w_u = 0 at the start: a new user is exactly e₀, the mean of V

Users of like taste share what they learn, and a user is K numbers instead of P · H.
Knows nothing of optimizers, rounds, files or people; a user is an integer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from trainer.own_numbers import OwnNumbers
from trainer.user_vectors import UserVectors, mixed, served_vectors


class ClusterUserModel:
    """e_u = softmax(w_u) · V; implements `trainer.user_models.UserModel`.

    Args:
        clusters: V, (K, P, H).
        weights: user_id → w_u, (K,), of every user met so far.
        learning: users whose weights this round may change; others are carried over untouched.
    """

    def __init__(
        self, clusters: Tensor, weights: Mapping[int, Tensor], learning: Iterable[int]
    ) -> None:
        self._clusters = nn.Parameter(clusters.detach().clone())
        self._nobody = clusters.new_zeros(len(clusters))
        self._own = OwnNumbers(self._nobody, weights, learning)

    def prefix(self, user_id: int | None) -> Tensor:
        """e_u, (P, H) fp32; e₀ for None and for a user never met."""
        own = self._own.of(user_id)
        return mixed(self._nobody if own is None else own, self._clusters)

    def unlearnt(self, user_id: int) -> Tensor:
        """e₀, (P, H) fp32."""
        return mixed(self._nobody, self._clusters)

    def unlearn(self, user_id: int) -> None:
        """w_u = 0 again."""
        self._own.reset(user_id)

    def reference(self, user_id: int) -> None:
        """π_ref is the base model."""

    def shared_parameters(self) -> dict[str, nn.Parameter]:
        """`clusters`: V (K, P, H)."""
        return {"clusters": self._clusters}

    def own_parameters(self) -> dict[str, nn.Parameter]:
        """One w_u (K,) per learning user, `user.<id>`."""
        return self._own.parameters()

    def tensors(self) -> dict[str, Tensor]:
        """clusters (K, P, H), user_ids (N,) int64 ascending, weights (N, K); on the CPU."""
        return {
            "clusters": self._clusters.detach().cpu().clone(),
            **self._own.tensors("weights"),
        }

    def vectors(self) -> UserVectors:
        """e₀ and every e_u, detached."""
        return served_vectors(self.tensors())


def cluster_from_tensors(
    tensors: Mapping[str, Tensor], learning: Iterable[int], device: torch.device
) -> ClusterUserModel:
    """The model `ClusterUserModel.tensors` was called on, on `device`."""
    weights = zip(tensors["user_ids"].tolist(), tensors["weights"].to(device), strict=True)
    return ClusterUserModel(tensors["clusters"].to(device), dict(weights), learning)


def clusters_near(table: Tensor, words: Sequence[int], count: int, *, seed: int) -> Tensor:
    """K prefixes of real words: at each place the K words nearest to the given one, dealt out.

    Near words keep every prefix at the scale and in the neighbourhood of words that make sense
    there; no two prefixes have a word in common at any place, so that each can go its own way.

    Args:
        table: (vocabulary, H) word embeddings.
        words: P token ids.
        count: K.
        seed: fixes which prefix gets which word.

    Returns:
        (K, P, H) fp32.

    Raises:
        ValueError: the vocabulary has fewer than K words.
    """
    if count > len(table):
        raise ValueError(f"there are only {len(table)} words for {count} clusters")
    generator = torch.Generator().manual_seed(seed)
    directions = nn.functional.normalize(table, dim=1)
    dealt = []
    for word in words:
        nearest = (directions @ directions[word]).topk(count).indices
        order = torch.randperm(count, generator=generator).to(nearest.device)
        dealt.append(table[nearest[order]])
    return torch.stack(dealt, dim=1).float()
