"""Measures what the gate judges: held-out losses, the round's pairs, likelihoods, probe texts.

Everything runs on the model with the round's adapter attached. Decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from trainer.adapter import AttachedAdapter
from trainer.batching import PairRows
from trainer.config import TrainConfig
from trainer.gate import GateFigures, HeldOutPair, TextFigures, oldest_user
from trainer.language_model import LanguageModel
from trainer.own_pairs import OwnPairs, most_touched, round_pairs
from trainer.probes import (
    BaseTexts,
    Probe,
    ProbeText,
    read_texts,
    text_drops,
    text_figures,
    write_texts,
)
from trainer.prompting import PromptFormat, personal_messages
from trainer.readings import PairReading, own_readings
from trainer.types import Message, PreferencePair, RoundKind
from trainer.user_models import UserModel

_DRIFT_TEXTS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """What a candidate is measured on; the same for every candidate of one round.

    Attributes:
        kind: of the round; in a vector round the generic user cannot have changed.
        round_id: seeds the texts, and turns through the users who did not take part.
        pairs: trained on. held_out: never trained on.
        before: the held-out pairs under the parent, each under its user's vector.
        own: some of `pairs`, as parent and candidate read them.
        references: response_id → summed log π_ref, nats, of every response in the pairs.
        carried: the parent's tensors of users, as `UserModel.tensors` gives them.
        prompts: the probe texts answer these.
    """

    kind: RoundKind
    round_id: int
    pairs: Sequence[PairRows]
    held_out: Sequence[PairRows]
    before: Sequence[PairReading]
    own: OwnPairs
    references: Mapping[int, float]
    carried: Mapping[str, Tensor]
    prompts: Sequence[tuple[Message, ...]]


def measure(
    base: LanguageModel,
    adapter: AttachedAdapter,
    users: UserModel,
    examination: Examination,
    *,
    config: TrainConfig,
    base_texts: BaseTexts,
) -> tuple[GateFigures, tuple[dict[str, Any], ...]]:
    """All the gate judges a candidate by, and the texts it wrote.

    The candidate is the model with `adapter` attached and `users`. One with numbers that are not
    finite, or that has altered users who did not take part, is refused whatever it writes: nothing
    else is measured.
    """
    pairs, held_out = examination.pairs, examination.held_out
    took_part = [rows.pair for rows in pairs]
    tensors = users.tensors()
    figures = GateFigures(
        nonfinite=nonfinite({**adapter.tensors(), **tensors}),
        altered=altered_users(examination.carried, tensors, {p.user_id for p in took_part}),
        held_out=(),
        oldest_user=oldest_user([*took_part, *(rows.pair for rows in held_out)]),
        round_pairs=(),
        base_texts=None,
        texts={},
        drift_nats={},
    )
    if figures.nonfinite or figures.altered:
        return figures, ()
    after = own_readings(base, users, held_out, examination.references, config)
    absent = _absentee(tensors["user_ids"].tolist(), took_part, examination.round_id)
    writers = (
        # In a vector round nobody else can write otherwise than before.
        *((None,) if examination.kind == "full" else ()),
        *most_touched(took_part, config.gate.probe_users),
        *((absent,) if absent is not None and examination.kind == "full" else ()),
    )
    profiles: dict[int | None, str] = {pair.user_id: pair.profile for pair in took_part}
    base_own, by_writer, drift, samples = probe_figures(
        base,
        adapter,
        users,
        writers=writers,
        profiles=profiles,
        messages=examination.prompts,
        base_texts=base_texts,
        config=config,
        seed=config.seed + examination.round_id,
    )
    figures = replace(
        figures,
        held_out=tuple(
            _held_out_pair(rows, before, now)
            for rows, before, now in zip(held_out, examination.before, after, strict=True)
        ),
        round_pairs=round_pairs(base, adapter, users.prefix(None), examination.own, config),
        base_texts=base_own,
        texts=by_writer,
        drift_nats=drift,
    )
    return figures, samples


def _held_out_pair(rows: PairRows, before: PairReading, now: PairReading) -> HeldOutPair:
    change = None
    if now.end_logp is not None and before.end_logp is not None:
        change = now.end_logp - before.end_logp
    return HeldOutPair(rows.pair.user_id, before.loss_nats, now.loss_nats, change)


def altered_users(
    parent: Mapping[str, Tensor], candidate: Mapping[str, Tensor], took_part: set[int]
) -> tuple[int, ...]:
    """Users who did not take part, and whose own numbers are not the parent's, bit for bit."""
    name = "offsets" if "offsets" in parent else "weights"
    now = dict(zip(candidate["user_ids"].tolist(), candidate[name], strict=True))
    return tuple(
        user
        for user, numbers in zip(parent["user_ids"].tolist(), parent[name], strict=True)
        if user not in took_part
        and not (user in now and torch.equal(now[user].cpu(), numbers.cpu()))
    )


def nonfinite(tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Names of tensors with a number that is not finite."""
    return tuple(name for name, tensor in tensors.items() if not tensor.isfinite().all())


def _absentee(known: Sequence[int], pairs: Sequence[PreferencePair], turn: int) -> int | None:
    """One of the known users who did not take part; another in each round."""
    absent = sorted(set(known) - {pair.user_id for pair in pairs})
    return absent[turn % len(absent)] if absent else None


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
) -> tuple[TextFigures, dict[str, TextFigures], dict[str, float], tuple[dict[str, Any], ...]]:
    """Let each of `writers` write (None: the generic user); one generate call for all of them.

    Users write with their `profiles` in the prompt, as they are served; the base model reads what
    they wrote without.

    Returns:
        Figures of the base model's texts, figures by writer, by writer how much less likely the
        base model's own texts have become (nats per token), and the samples themselves.
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
            max_tokens=config.forward_tokens,
        )
    # Without profiles: what the weights do is asked here, not what a profile does.
    some = list(zip(messages, own, strict=True))[:_DRIFT_TEXTS]
    plain = [Probe(prompt, prefix) for _, prefix in vectors for prompt, _ in some]
    drops = text_drops(
        base,
        prompts,
        plain,
        [text for _, text in some] * len(writers),
        max_tokens=config.forward_tokens,
    )
    by_writer: dict[str, TextFigures] = {}
    drift: dict[str, float] = {}
    samples = _samples("base", None, messages, own)
    for index, user in enumerate(writers):
        name = "generic" if user is None else f"user {user}"
        mine = texts[index * len(messages) : (index + 1) * len(messages)]
        theirs = drops[index * len(some) : (index + 1) * len(some)]
        by_writer[name] = text_figures(mine)
        drift[name] = sum(theirs) / len(theirs)
        condition = "generic" if user is None else "personal"
        samples += _samples(condition, user, messages, mine)
    return text_figures(own), by_writer, drift, tuple(samples)


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
