"""Measures what the gate judges: held-out losses, the round's pairs, likelihoods, probe texts.

Everything runs on the model with the round's adapter attached. Decides nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from trainer.adapter import AttachedAdapter
from trainer.batching import PairRows
from trainer.config import GateConfig, TrainConfig
from trainer.gate import GateFigures, HeldOutPair, in_doubt, oldest_user
from trainer.gate_texts import TextFigures
from trainer.language_model import LanguageModel
from trainer.own_pairs import OwnPairs, most_touched, round_pairs
from trainer.probes import BaseTexts, ProbeText, text_figures
from trainer.probing import Probing, samples, writer_name
from trainer.readings import PairReading, own_readings
from trainer.types import Message, PreferencePair, RoundKind
from trainer.user_models import UserModel

_MORE = 2  # times as many texts, of whoever is in doubt
_ANOTHER = 1 << 31  # what their seed is apart from the first one's; torch takes 32 bits


@dataclass(frozen=True, slots=True)
class ParentState:
    """A parent version.

    Attributes:
        adapter: its weights.
        users: with the candidate's style shares, which are not learnt.
        tensors: of users, as `UserModel.tensors` gave them.
    """

    adapter: Mapping[str, Tensor]
    users: UserModel
    tensors: Mapping[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """What a candidate is measured on; the same for every candidate of one round.

    Attributes:
        kind: of the round; in a vector round the generic user cannot have changed.
        round_id: seeds the texts, and turns through the users who did not take part.
        pairs: trained on. held_out: never trained on.
        before: the held-out pairs under the parent, each under its user's vector.
        own: some of `pairs`, as parent and candidate read them.
        own_references: response_id → log π_ref, nats, as users' own terms have it, of every
            response in the pairs.
        parent: what the round began with.
        prompts: the probe texts answer these.
        put_back: users of whom nothing is left that this round did: what they write is not asked.
    """

    kind: RoundKind
    round_id: int
    pairs: Sequence[PairRows]
    held_out: Sequence[PairRows]
    before: Sequence[PairReading]
    own: OwnPairs
    own_references: Mapping[int, float]
    parent: ParentState
    prompts: Sequence[tuple[Message, ...]]
    put_back: Collection[int] = ()


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
        altered=altered_users(examination.parent.tensors, tensors, {p.user_id for p in took_part}),
        held_out=(),
        oldest_user=oldest_user([*took_part, *(rows.pair for rows in held_out)]),
        round_pairs=(),
        base_texts=None,
        texts={},
        more_texts={},
        parent_texts={},
        drift_nats={},
    )
    if figures.nonfinite or figures.altered:
        return figures, ()
    after = own_readings(base, users, held_out, examination.own_references, config)
    absent = _absentee(tensors["user_ids"].tolist(), took_part, examination.round_id)
    writers = (
        # In a vector round nobody else can write otherwise than before.
        *((None,) if examination.kind == "full" else ()),
        *most_touched(
            [pair for pair in took_part if pair.user_id not in examination.put_back],
            config.gate.probe_users,
        ),
        *((absent,) if absent is not None and examination.kind == "full" else ()),
    )
    # As each is served now: a replayed pair has the words of its day, and stands behind new ones.
    latest = sorted(took_part, key=lambda pair: pair.pair_id)
    profiles: dict[int | None, str] = {pair.user_id: pair.profile for pair in latest}
    probing = Probing(base, adapter, tuple(examination.prompts), profiles, base_texts, config)
    vectors = {user: users.prefix(user) for user in writers}
    seed = config.seed + examination.round_id
    base_own, written = probing.base_own(), probing.written(vectors, seed)
    drift = probing.drift_nats(vectors, base_own)
    figures = replace(
        figures,
        held_out=tuple(
            _held_out_pair(rows, before, now)
            for rows, before, now in zip(held_out, examination.before, after, strict=True)
        ),
        round_pairs=round_pairs(base, adapter, users.prefix(None), examination.own, config),
        base_texts=text_figures(base_own),
        texts=_by_name(written),
        drift_nats={writer_name(user): nats for user, nats in drift.items()},
    )
    if doubtful := _doubtful(figures, writers, config.gate):
        parent = examination.parent
        more = probing.written({u: vectors[u] for u in doubtful}, seed + _ANOTHER, times=_MORE)
        with adapter.holding(parent.adapter):
            before = probing.written(
                {u: parent.users.prefix(u) for u in doubtful}, seed, times=1 + _MORE
            )
        figures = replace(figures, more_texts=_by_name(more), parent_texts=_by_name(before))
    prompts = examination.prompts
    kept = samples("base", None, prompts, base_own)
    for user, texts in written.items():
        kept += samples("generic" if user is None else "personal", user, prompts, texts)
    return figures, tuple(kept)


def _doubtful(
    figures: GateFigures, writers: Sequence[int | None], bounds: GateConfig
) -> list[int | None]:
    names = set(in_doubt(figures, bounds))
    return [user for user in writers if writer_name(user) in names]


def _by_name(written: Mapping[int | None, Sequence[ProbeText]]) -> dict[str, TextFigures]:
    return {writer_name(user): text_figures(texts) for user, texts in written.items()}


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
