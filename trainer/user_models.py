"""User → prefix (P, H): the seam every user model fills, the individual model, and which to take.

    individual   e_u = e₀ + o_u, here
    cluster      e_u = softmax(w_u) · V, in `trainer.cluster_users`
    styled       e_u = e₀ + Σ_k a_k(u) · d_k + o_u, in `trainer.styled_users`

Knows nothing of optimizers, rounds, files or people; a user is an integer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trainer.cluster_users import ClusterUserModel, cluster_from_tensors, clusters_near
from trainer.config import TrainConfig, UserModelKind
from trainer.own_numbers import OwnNumbers
from trainer.prompting import PromptFormat
from trainer.styled_users import StyledUserModel, styled_from_tensors
from trainer.user_vectors import UserVectors, served_vectors

_WORDS = "You are a helpful and friendly assistant."  # where a template says nothing of itself


class UserModel(Protocol):
    """Maps users to prefixes; some of its numbers are learned in a round."""

    def prefix(self, user_id: int | None) -> Tensor:
        """e_u, (P, H) fp32, differentiable; e₀ for None and for a user never met."""

    def unlearnt(self, user_id: int) -> Tensor:
        """e_u as it would be had descent moved nothing that is this user's own, (P, H) fp32."""

    def unlearn(self, user_id: int) -> None:
        """Make a learning user's prefix what `unlearnt` says."""

    def reference(self, user_id: int) -> Tensor | None:
        """The prefix (P, H) under which π_ref reads this user's pairs; None: it has none."""

    def shared_parameters(self) -> dict[str, nn.Parameter]:
        """What everybody's prefix is made of, by names that stay the same through rounds."""

    def own_parameters(self) -> dict[str, nn.Parameter]:
        """What belongs to one learning user, as `user.<id>`.

        Each is a tensor of its own: outside that user's batches its gradient is None, so that
        AdamW neither moves it nor advances its step count.
        """

    def tensors(self) -> dict[str, Tensor]:
        """What `user_vectors.safetensors` keeps, on the CPU (see `trainer.user_vectors`)."""

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
        self._own = OwnNumbers(torch.zeros_like(generic), offsets, learning)

    def prefix(self, user_id: int | None) -> Tensor:
        """e_u, (P, H) fp32; e₀ for None and for a user never met."""
        offset = self._own.of(user_id)
        return self._generic if offset is None else self._generic + offset

    def unlearnt(self, user_id: int) -> Tensor:
        """e₀, (P, H) fp32."""
        return self._generic

    def unlearn(self, user_id: int) -> None:
        """o_u = 0 again."""
        self._own.reset(user_id)

    def reference(self, user_id: int) -> None:
        """π_ref is the base model."""

    def shared_parameters(self) -> dict[str, nn.Parameter]:
        """`generic`: e₀."""
        return {"generic": self._generic}

    def own_parameters(self) -> dict[str, nn.Parameter]:
        """One o_u (P, H) per learning user, `user.<id>`."""
        return self._own.parameters()

    def tensors(self) -> dict[str, Tensor]:
        """generic (P, H), user_ids (N,) int64 ascending, offsets (N, P, H); on the CPU."""
        return {
            "generic": self._generic.detach().cpu().clone(),
            **self._own.tensors("offsets"),
        }

    def vectors(self) -> UserVectors:
        """e₀ and every e_u, detached."""
        return served_vectors(self.tensors())


def individual_from_tensors(
    tensors: Mapping[str, Tensor], learning: Iterable[int], device: torch.device
) -> IndividualUserModel:
    """The model `IndividualUserModel.tensors` was called on, on `device`."""
    offsets = zip(tensors["user_ids"].tolist(), tensors["offsets"].to(device), strict=True)
    return IndividualUserModel(tensors["generic"].to(device), dict(offsets), learning)


def initial_users(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    config: TrainConfig,
    directions: Tensor | None = None,
) -> UserModel:
    """The user model before the first round: nobody is known, everything starts from words.

    Args:
        directions: (K, P, H), of the styled user model.

    Raises:
        ValueError: there are more clusters than words, or the styled model has no directions that
            fit.
    """
    own = PromptFormat(tokenizer, config.prefix_tokens).own_system_text()
    words = _word_ids(tokenizer, config.prefix_init_text or own or _WORDS, config.prefix_tokens)
    if config.user_model == "cluster":
        table = _embedded(model, range(model.config.get_text_config().vocab_size))
        clusters = clusters_near(table, words, config.clusters, seed=config.seed)
        return ClusterUserModel(clusters, {}, ())
    generic = _embedded(model, words)
    if config.user_model == "styled":
        if directions is None or directions.shape[1:] != generic.shape:
            raise ValueError(
                "the styled user model needs style directions made for this base model: "
                "`python -m backend.direction_command` makes them"
            )
        return StyledUserModel(generic, directions, {}, {}, ())
    return IndividualUserModel(generic, {}, ())


def users_from_tensors(
    kind: UserModelKind,
    tensors: Mapping[str, Tensor],
    learning: Iterable[int],
    device: torch.device,
    shares: Mapping[int, Tensor] | None = None,
) -> UserModel:
    """The user model `tensors` came from, on `device`; only `learning` users may change.

    Args:
        shares: newer style shares (K,) of some of them, of the styled user model.
    """
    if kind == "cluster":
        return cluster_from_tensors(tensors, learning, device)
    if kind == "styled":
        return styled_from_tensors(tensors, learning, device, shares or {})
    return individual_from_tensors(tensors, learning, device)


def _word_ids(tokenizer: PreTrainedTokenizerBase, text: str, count: int) -> list[int]:
    """The tokens of `text`, repeated or cut to `count`."""
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return (ids * count)[:count]


@torch.no_grad()
def _embedded(model: PreTrainedModel, ids: Sequence[int]) -> Tensor:
    """(len(ids), H) fp32 on the CPU."""
    rows: Tensor = model.get_input_embeddings()(torch.tensor(ids, device=model.device))
    return rows.float().cpu()
