"""Every number a round is trained with, in one frozen record that is saved beside the round.

Knows nothing of torch, files or databases.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

Loss = Literal["sigmoid", "ipo", "robust", "hinge"]
UserModelKind = Literal["individual", "cluster", "styled"]

# What gives a version its form: it cannot change from one version to the next.
_SHAPING = ("user_model", "prefix_tokens", "lora_rank", "lora_alpha", "lora_targets")
_RETIRED = {"adapter_from_epoch", "learning_rate_cluster_weights"}  # settings of earlier releases


@dataclass(frozen=True, slots=True, kw_only=True)
class GateConfig:
    """Bounds a round must keep before it may become a version.

    Attributes:
        held_out_loss_tolerance: how much the mean held-out loss (nats) may rise over the parent's
            beyond what chance explains (see `trainer.gate`).
        held_out_spread_nats: least spread of one pair's change in loss that is put down to chance.
        held_out_min_pairs: a single user is judged by at least so many held-out pairs.
        max_own_over_unlearnt_nats: how much the mean loss of a user's pairs in the round may be
            higher under the user's vector than without what was learnt for this user.
        max_own_over_parent_nats: the same against the user's vector before the round.
        max_chosen_logp_drop_nats: how far the chosen responses' mean log-prob per token may fall
            below the reference's (`trainer.references`).
        max_end_logp_drop_nats: how much less likely what was learnt may make the end of turn where
            chosen responses ended; and, on a user's held-out pairs, than under the parent.
        max_nll_rise_nats: how much the base model's mean negative log-likelihood per token of a
            touched user's generated text may exceed that of the base model's own text.
        doubtful_nll_rise_nats: whoever is so far above the base model's writes more, and under the
            parent too.
        max_round_nll_rise_nats: how much that of these texts may exceed the parent's.
        text_spread_nats: spread of all three between sound texts, put down to chance.
        max_drift_nats: how much less likely per token the base model's own texts may be under
            any writer.
        min_length_ratio, max_length_ratio: bounds on mean generated length against base text.
        max_repetition: largest share of repeated 4-grams in one user's generated texts.
        probe_prompts: prompts generated per writer.
        probe_users: at most so many touched users are probed, most choices first; beside them the
            generic user and one who did not take part.
        probe_new_tokens: length limit of a probe text.
    """

    held_out_loss_tolerance: float = 0.10
    held_out_spread_nats: float = 0.5
    held_out_min_pairs: int = 4
    max_own_over_unlearnt_nats: float = 0.02
    max_own_over_parent_nats: float = 0.2
    max_chosen_logp_drop_nats: float = 1.0
    max_end_logp_drop_nats: float = 2.0
    max_nll_rise_nats: float = 0.8
    doubtful_nll_rise_nats: float = 0.1
    max_round_nll_rise_nats: float = 0.05
    text_spread_nats: float = 0.35
    max_drift_nats: float = 1.0
    min_length_ratio: float = 0.15
    max_length_ratio: float = 3.0
    max_repetition: float = 0.3
    probe_prompts: int = 8
    probe_users: int = 3
    probe_new_tokens: int = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """The recipe of one round (P-DPO, arXiv 2402.05133, with DPOP, arXiv 2402.13228, and NLL).

    Attributes:
        user_model: how a user becomes a vector (see `trainer.user_models`).
        clusters: K, shared prefixes of the cluster user model.
        prefix_tokens: P, soft-prompt tokens per user vector.
        prefix_init_text: e₀ starts at the embeddings of these words, repeated or cut to P tokens;
            empty takes the system message the model's chat template sends of itself. Where that
            has P tokens, e₀ begins as the base model: every margin starts at 0, and what is learnt
            is not drowned in the difference between two system messages.
        loss: what is made of a pair's margin (see `trainer.losses`).
        label_noise: ε of the robust loss, the share of choices taken to be mistaken, below 0.5.
        average_logps: margins and DPOP on mean log-probs per token instead of sums.
        beta: β, inverse temperature of the implicit reward (summed log-probs, nats).
        alpha: α, weight of the user's own term against the generic term, in [0, 1].
        sample_terms: take one of the two terms of each pair, the user's own with probability α,
            instead of both: half the work a step, the same gradient on average, more noise.
        dpop_lambda: λ, penalty on a chosen response that becomes less likely than under π_ref.
        nll_weight: weight of the chosen response's mean negative log-likelihood per token.
        nll_weight_generic: the same in the generic term; None takes `nll_weight`.
        learning_rate_adapter, learning_rate_vector: AdamW rates, no weight decay.
        learning_rate_weights: the same of a user's K weights in the cluster user model.
        epochs: passes over a round's pairs.
        own_epochs: passes in which users' own numbers learn alone, by their own term, before e₀ and
            the adapter join in; with `epochs` of them nothing shared is ever trained.
        vector_epochs: passes of a vector round.
        vector_rate_factor: in a vector round the rate of a user's own numbers is so much higher.
        batch_pairs: pairs per optimizer step.
        forward_tokens: at most so many tokens per forward pass; bounds memory, changes no result.
        clip_norm_adapter: gradient-norm bound on the adapter.
        lora_rank, lora_alpha, lora_targets: the shared adapter.
        seed: orders the pairs and starts the adapter.

    Raises:
        ValueError: a number is outside its range.
    """

    user_model: UserModelKind = "individual"
    clusters: int = 10
    prefix_tokens: int = 16
    prefix_init_text: str = ""
    loss: Loss = "sigmoid"
    label_noise: float = 0.1
    average_logps: bool = False
    beta: float = 0.1
    alpha: float = 0.5
    sample_terms: bool = False
    dpop_lambda: float = 5.0
    nll_weight: float = 1.0
    nll_weight_generic: float | None = None
    learning_rate_adapter: float = 5e-4
    learning_rate_vector: float = 2e-3
    learning_rate_weights: float = 0.2
    epochs: int = 2
    own_epochs: int = 0
    vector_epochs: int = 4
    vector_rate_factor: float = 2.0
    batch_pairs: int = 4
    forward_tokens: int = 2048
    clip_norm_adapter: float = 1.0
    lora_rank: int = 8
    lora_alpha: int = 16
    lora_targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    seed: int = 0
    gate: GateConfig = GateConfig()

    def __post_init__(self) -> None:
        if not 0 <= self.label_noise < 0.5:
            raise ValueError("label_noise must be at least 0 and below 0.5")
        if self.clusters < 2:
            raise ValueError("there must be at least 2 clusters")

    @property
    def nll_weight_of_generic(self) -> float:
        """The NLL's weight in the generic term."""
        return self.nll_weight if self.nll_weight_generic is None else self.nll_weight_generic

    @property
    def learning_rate_own(self) -> float:
        """The rate of the numbers that belong to one user alone."""
        if self.user_model == "cluster":
            return self.learning_rate_weights
        return self.learning_rate_vector

    def misfit(self, made_with: TrainConfig) -> str | None:
        """Why a version made with another recipe cannot be learnt on by this one; None: it can."""
        clusters = ("clusters",) if self.user_model == "cluster" else ()
        for name in (*_SHAPING, *clusters):
            old, new = getattr(made_with, name), getattr(self, name)
            if old != new:
                return (
                    f"{name} is {new}, but the parent version was made with {old}: "
                    "set it back, or begin with another data folder"
                )
        return None

    def for_vector_round(self) -> TrainConfig:
        """The recipe of a round that trains some users' own numbers and nothing shared."""
        return replace(
            self,
            epochs=self.vector_epochs,
            own_epochs=self.vector_epochs,
            learning_rate_vector=self.vector_rate_factor * self.learning_rate_vector,
            learning_rate_weights=self.vector_rate_factor * self.learning_rate_weights,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain data that `from_json` turns back into an equal record."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> TrainConfig:
        """The record written by `to_json`, also by an earlier release: absent keys take defaults.

        Bounds and settings that are no more are left out; they change nothing that is served.

        Raises:
            ValueError: any other key is unknown, or a number is outside its range.
        """
        unknown = set(data) - {f.name for f in fields(cls)} - _RETIRED
        if unknown:
            raise ValueError(f"unknown training settings: {', '.join(sorted(unknown))}")
        values = {name: value for name, value in data.items() if name not in _RETIRED}
        if "lora_targets" in values:
            values["lora_targets"] = tuple(values["lora_targets"])
        bounds = {f.name for f in fields(GateConfig)}
        gate = {name: value for name, value in values.get("gate", {}).items() if name in bounds}
        return cls(**{**values, "gate": GateConfig(**gate)})


# What a user model learns best by, on top of `TrainConfig`'s defaults (RESULTS.md, dev/LOG.md).
# Of the styled one only users' own numbers learn: which styles are theirs is inferred from their
# choices, and whatever is shared then stays as it was, so nobody is forgotten. Its π_ref has the
# styles in it, and DPOP keeps chosen responses as likely as they are there: NLL besides holds the
# offset back. The rate keeps that below a direction (0.02 an element of 0.07 after 40 choices).
_RECIPES: dict[UserModelKind, dict[str, Any]] = {
    "styled": {
        "learning_rate_vector": 4e-3,
        "batch_pairs": 2,
        "epochs": 1,
        "own_epochs": 1,
        "vector_epochs": 1,
        "vector_rate_factor": 1.0,
        "beta": 0.3,
        "nll_weight": 0.0,
    }
}


def recipe_for(user_model: UserModelKind, **changes: Any) -> TrainConfig:
    """The recipe that was measured for this user model, with what is asked for otherwise."""
    recipe = {"user_model": user_model} | _RECIPES.get(user_model, {}) | changes
    # A recipe in which nothing shared is trained stays one, however many passes are asked for.
    if recipe.get("own_epochs") and "own_epochs" not in changes:
        recipe["own_epochs"] = recipe["epochs"]
    return TrainConfig(**recipe)
