"""Measures what the gate judges: held-out losses, chosen log-probs, probe texts.

Everything runs on the model with the round's adapter attached. Decides nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from trainer.adapter import AttachedAdapter
from trainer.batching import PairRows
from trainer.config import TrainConfig
from trainer.gate import TextFigures
from trainer.language_model import LanguageModel
from trainer.learning import pair_tokens, reference_logps
from trainer.losses import PairLogps, recipe_margin, sigmoid_loss
from trainer.probes import BaseTexts, Probe, ProbeText, read_texts, text_figures, write_texts
from trainer.prompting import PromptFormat, personal_messages
from trainer.scoring import response_logps
from trainer.types import Message, PreferencePair
from trainer.user_models import UserModel

_MOST_CHOSEN_ROWS = 16


@torch.no_grad()
def held_out_losses(
    base: LanguageModel,
    users: UserModel,
    pairs: Sequence[PairRows],
    references: Mapping[int, float],
    config: TrainConfig,
) -> list[float]:
    """The DPO loss −log σ(β h(u)) of each pair under its user's vector, in nats."""
    if not pairs:
        return []
    vectors = {user: users.prefix(user) for user in {p.pair.user_id for p in pairs}}
    own = [vectors[p.pair.user_id] for p in pairs]
    rows = [p.chosen for p in pairs] + [p.rejected for p in pairs]
    logps = response_logps(base.model, rows, own + own, max_tokens=config.forward_tokens)
    policy = PairLogps(*logps.view(2, -1))
    reference = reference_logps(pairs, references, logps.device)
    tokens = pair_tokens(pairs, logps.device)
    # One scale whatever the recipe's loss is, so that the gate's bounds keep their meaning.
    losses = sigmoid_loss(recipe_margin(policy, reference, tokens, config), config.beta)
    return [float(loss) for loss in losses]


@torch.no_grad()
def chosen_logp_change(
    base: LanguageModel,
    users: UserModel,
    pairs: Sequence[PairRows],
    references: Mapping[int, float],
    config: TrainConfig,
) -> float:
    """Mean of (log π(y⁺|x,u) − log π_ref(y⁺|x)) / |y⁺| in nats per token.

    Measured after the last step, on at most 16 pairs spread evenly over `pairs`.
    """
    some = pairs[:: -(-len(pairs) // _MOST_CHOSEN_ROWS)]
    own = [users.prefix(p.pair.user_id) for p in some]
    logps = response_logps(
        base.model, [p.chosen for p in some], own, max_tokens=config.forward_tokens
    )
    reference = reference_logps(some, references, logps.device).chosen
    tokens = torch.tensor([len(p.chosen.response_ids) for p in some], device=logps.device)
    return float(((logps - reference) / tokens).mean())


def nonfinite(tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Names of tensors with a number that is not finite."""
    return tuple(name for name, tensor in tensors.items() if not tensor.isfinite().all())


def probed_users(pairs: Sequence[PreferencePair], most: int) -> list[int]:
    """Touched users, most pairs first, at most `most`."""
    counts = Counter(pair.user_id for pair in pairs)
    return sorted(counts, key=lambda user: (-counts[user], user))[:most]


def probe_messages(
    given: Sequence[tuple[Message, ...]], pairs: Sequence[PreferencePair], most: int
) -> list[tuple[Message, ...]]:
    """The prompts to probe with: those `given`, else the pairs' own; at most `most`."""
    found: list[tuple[Message, ...]] = []
    for messages in given or [pair.messages for pair in pairs]:
        if messages not in found:
            found.append(messages)
    return found[:most]


@torch.no_grad()
def probe_figures(
    base: LanguageModel,
    adapter: AttachedAdapter,
    users: UserModel,
    *,
    writers: Sequence[int | None],
    profiles: Mapping[int | None, str],
    messages: Sequence[tuple[Message, ...]],
    base_texts: BaseTexts,
    config: TrainConfig,
    seed: int,
) -> tuple[TextFigures, dict[str, TextFigures], tuple[dict[str, Any], ...]]:
    """Let each of `writers` write (None: the generic user); one generate call for all of them.

    Users write with their `profiles` in the prompt, as they are served; the base model reads what
    they wrote without.

    Returns:
        Figures of the base model's texts, figures by writer, and the samples themselves.
    """
    prompts = PromptFormat(base.tokenizer, config.prefix_tokens)
    limit = config.gate.probe_new_tokens
    vectors = [(user, users.prefix(user)) for user in writers]
    probes = [
        Probe(personal_messages(prompt, profiles.get(user, "")), prefix)
        for user, prefix in vectors
        for prompt in messages
    ]
    asked = list(messages) * len(writers)
    ids = write_texts(base, prompts, probes, new_tokens=limit, seed=seed)
    with adapter.disabled():
        texts = read_texts(base, prompts, asked, ids, max_tokens=config.forward_tokens)
        own = base_texts.get(
            base,
            prompts,
            messages,
            new_tokens=limit,
            seed=config.seed,
            max_tokens=config.forward_tokens,
        )
    by_writer: dict[str, TextFigures] = {}
    samples = _samples("base", None, messages, own)
    for index, user in enumerate(writers):
        mine = texts[index * len(messages) : (index + 1) * len(messages)]
        by_writer["generic" if user is None else f"user {user}"] = text_figures(mine)
        condition = "generic" if user is None else "personal"
        samples += _samples(condition, user, messages, mine)
    return text_figures(own), by_writer, tuple(samples)


def _samples(
    condition: str,
    user: int | None,
    messages: Sequence[tuple[Message, ...]],
    texts: Sequence[ProbeText],
) -> list[dict[str, Any]]:
    return [
        {
            "condition": condition,
            "user_id": user,
            "prompt": prompt[-1]["content"],
            "text": text.text,
            "tokens": len(text.token_ids),
            "nll_nats": text.nll_nats / max(1, len(text.token_ids)),
        }
        for prompt, text in zip(messages, texts, strict=True)
    ]
