"""Choices in the database → what a round is given: pairs, held-out pairs, probe prompts.

The session ends before training begins; the trainer works on this snapshot.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import update
from sqlalchemy.orm import Session

from backend import selection
from backend.prompts import messages_of
from backend.selection import Candidate
from db.models import Choice, Comparison, Response, RoundPair
from db.queries import comparisons as prompt_queries
from db.queries import rounds as queries
from trainer.types import Message, PreferencePair, ResponseTokens

_REPLAY_POOL = 2000
_HELD_OUT = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundLimits:
    """How large a round may be.

    Attributes:
        new, replay: most new and most replayed pairs.
        user_cap: most pairs of one user.
    """

    new: int
    replay: int
    user_cap: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundInput:
    """What one round works on; `uses` says for each choice what for."""

    pairs: tuple[PreferencePair, ...]
    held_out: tuple[PreferencePair, ...]
    probe_prompts: tuple[tuple[Message, ...], ...]
    uses: Mapping[int, str]

    def round_pairs(self, round_id: int) -> list[RoundPair]:
        """Rows that record which choice the round used for what."""
        return [
            RoundPair(round_id=round_id, choice_id=choice_id, use=use)
            for choice_id, use in self.uses.items()
        ]


def waiting(
    session: Session, identity: str, unscored_until: datetime | None = None
) -> list[Candidate]:
    """Choices no promoted full round has used, oldest first.

    Args:
        identity: the base model that made the responses.
        unscored_until: leave out pairs chosen later than this that have no prequential score yet.
    """
    return [
        _candidate(choice, selection.use_of(choice.verdict, purpose))
        for choice, purpose in queries.waiting_choices(session, identity, unscored_until)
    ]


def gather(
    session: Session,
    identity: str,
    limits: RoundLimits,
    probe_prompts: int,
    rng: random.Random,
    *,
    unscored_until: datetime,
) -> RoundInput:
    """Choose and load everything a round needs.

    Args:
        identity: the base model; pairs and reference log-probs of another one are not used.
        unscored_until: leave out pairs chosen later than this that have no prequential score yet.
    """
    ready = waiting(session, identity, unscored_until)
    picked = selection.pick_new(ready, limit=limits.new, user_cap=limits.user_cap)
    used = queries.replayable_choices(session, identity, _REPLAY_POOL)
    replay = selection.pick_replay(
        [_candidate(choice, "replay") for choice in used],
        picked,
        limit=limits.replay,
        user_cap=limits.user_cap,
        last_trained=queries.last_trained_at(session, identity),
        rng=rng,
    )
    held_out = queries.held_out_choices(session, identity, _HELD_OUT, unscored_until)
    return _load(session, identity, [*picked, *replay], held_out, probe_prompts)


def gather_vector(
    session: Session,
    identity: str,
    limits: RoundLimits,
    probe_prompts: int,
    *,
    users: Collection[int],
    unscored_until: datetime,
) -> RoundInput:
    """The same for a vector round of `users`: their waiting pairs, no replay.

    Held out are only their own: nobody else's vector, and so nobody else's loss, can change.
    """
    ready = [
        candidate
        for candidate in waiting(session, identity, unscored_until)
        if candidate.user_id in users and candidate.use == "new"
    ]
    picked = selection.pick_new(ready, limit=limits.new, user_cap=limits.user_cap)
    own = queries.held_out_choices(session, identity, _HELD_OUT, unscored_until, users)
    return _load(session, identity, picked, own, probe_prompts)


def _load(
    session: Session,
    identity: str,
    picked: Sequence[Candidate],
    held_out: Sequence[Choice],
    probe_prompts: int,
) -> RoundInput:
    uses = {choice.id: "held_out" for choice in held_out}
    uses.update({candidate.choice_id: candidate.use for candidate in picked})
    to_train = [c.choice_id for c in picked if c.use in ("new", "replay")]
    pairs = load_pairs(session, identity, [*to_train, *(choice.id for choice in held_out)])
    probes = prompt_queries.probe_prompts(session, probe_prompts)
    return RoundInput(
        pairs=tuple(pairs[choice_id] for choice_id in to_train),
        held_out=tuple(pairs[choice.id] for choice in held_out),
        probe_prompts=tuple(messages_of(prompt) for prompt in probes),
        uses=uses,
    )


def store_reference(session: Session, identity: str, logps_nats: Mapping[int, float]) -> None:
    """Keep log π_ref(y|x) with each response, so that it is computed once."""
    for response_id, value in logps_nats.items():
        session.execute(
            update(Response)
            .where(Response.id == response_id)
            .values(reference_logp_nats=value, reference_identity=identity)
        )


def _candidate(choice: Choice, use: str) -> Candidate:
    return Candidate(choice.id, choice.user_id, choice.created_at, use)


def load_pairs(
    session: Session, identity: str, choice_ids: Sequence[int]
) -> dict[int, PreferencePair]:
    """Choice id → its pair; verdicts must be `a` or `b`."""
    choices = queries.choices_by_id(session, choice_ids)
    comparisons = queries.comparisons_by_id(
        session, [choice.comparison_id for choice in choices.values()]
    )
    return {
        choice_id: _pair(choice, comparisons[choice.comparison_id], identity)
        for choice_id, choice in choices.items()
    }


def _pair(choice: Choice, comparison: Comparison, identity: str) -> PreferencePair:
    by_verdict = {response.side.lower(): response for response in comparison.responses}
    chosen = by_verdict.pop(choice.verdict)
    (rejected,) = by_verdict.values()
    return PreferencePair(
        pair_id=choice.id,
        user_id=choice.user_id,
        messages=messages_of(comparison.prompt),
        chosen=_tokens(chosen, identity),
        rejected=_tokens(rejected, identity),
        # One comparison is made with one profile; only personal responses carry it.
        profile=max(response.profile for response in comparison.responses),
    )


def _tokens(response: Response, identity: str) -> ResponseTokens:
    known = response.reference_identity == identity
    return ResponseTokens(
        response_id=response.id,
        token_ids=tuple(response.token_ids),
        reference_logp_nats=response.reference_logp_nats if known else None,
    )
