"""Scores each choice before a round may learn from it: did the live version foresee it?

For a choice with a pair, the margin of arXiv 2402.05133, in nats,

    h = [log π(y⁺) - log π(y⁻)] - [log π_ref(y⁺) - log π_ref(y⁻)]

under the user's own vector, the generic one and that of another user drawn at random (the wrong
user's, which should do worse). What taste models made from earlier choices said, the user's and
that other user's, is stored beside the margins. Rounds take scored pairs only (`Training`), so a
score always comes before learning. No database transaction is open while the model works. Several
processes may score at once: the first row stands.

Knows nothing of rounds and pages.
"""

from __future__ import annotations

import logging
import math
import random
import threading
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy.exc import IntegrityError

from backend import round_input
from backend.engines.base import Condition, Engine, EngineClosed, EngineFailed
from backend.errors import Unavailable
from backend.evidence import vector_holders
from backend.taste_model import STRANGER, TasteModel
from backend.user_tastes import taste_of
from db.models import PrequentialScore
from db.queries import evidence as queries
from db.session import Database
from trainer.prompting import personal_messages
from trainer.types import PreferencePair

_log = logging.getLogger(__name__)
_BATCH = 16
_TRIES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Margins:
    """A choice's margins in nats, all under one version.

    Attributes:
        reference: log π_ref of the chosen and the rejected response.
        wrong, wrong_user_id: None while no other user has a vector.
        personal_taste, wrong_taste: log-odds by what both had chosen before, nats; None where
            that was nothing.
    """

    version_id: int
    reference: tuple[float, float]
    personal: float
    generic: float
    wrong: float | None
    wrong_user_id: int | None
    personal_taste: float | None = None
    wrong_taste: float | None = None


class Scorer:
    """Scores what waits, oldest first, a few choices at each `run`."""

    def __init__(
        self,
        database: Database,
        engine: Engine,
        *,
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._engine = engine
        self._clock = clock
        self._closing = threading.Event()
        self._failures: Counter[int] = Counter()
        self._given_up: set[int] = set()
        self._holders: tuple[int, frozenset[int]] | None = None  # of one version's vectors

    def run(self) -> None:
        """Score up to a batch of waiting choices; those that cannot be are left out from then on.

        A round takes them unscored after a while (`score_wait` of `Training`).
        """
        for pair in self._waiting():
            if self._closing.is_set():
                return
            try:
                margins = self._margins(pair)
            except (EngineClosed, Unavailable):
                return
            except (EngineFailed, ValueError) as error:
                self._note_failure(pair, error)
                continue
            if margins is not None:
                self._store(pair, margins)

    def close(self) -> None:
        """Stop after the choice being scored."""
        self._closing.set()

    def _waiting(self) -> list[PreferencePair]:
        identity = self._engine.model_identity
        with self._database.read() as session:
            choices = queries.to_score(session, identity, self._given_up, _BATCH)
            ids = [choice.id for choice in choices]
            pairs = round_input.load_pairs(session, identity, ids)
        return [pairs[choice_id] for choice_id in ids]

    def _margins(self, pair: PreferencePair) -> Margins | None:
        """None when another version went live meanwhile: the choice is scored at the next run.

        Raises:
            EngineClosed, EngineFailed, Unavailable. ValueError: too long for the model, or a
            log-prob is not finite.
        """
        live = self._engine.live_version
        if live is None:
            return None
        reference = self._reference(pair)
        wrong_id = wrong_user(pair.pair_id, pair.user_id, self._vector_holders(live.version_id))
        personal = self._personal(pair, reference, pair.user_id, pair.profile)
        generic = self._margin(reference, self._logps(pair, Condition.GENERIC))
        wrong = None
        if wrong_id is not None:
            with self._database.read() as session:
                profile = queries.served_profile(session, wrong_id)
            wrong = self._personal(pair, reference, wrong_id, profile)
        personal_taste, wrong_taste = self._said_by_choices(pair, wrong_id)
        if self._engine.live_version != live:
            return None
        return Margins(
            version_id=live.version_id,
            reference=reference,
            personal=personal,
            generic=generic,
            wrong=wrong,
            wrong_user_id=wrong_id,
            personal_taste=personal_taste,
            wrong_taste=wrong_taste,
        )

    def _said_by_choices(
        self, pair: PreferencePair, wrong_id: int | None
    ) -> tuple[float | None, float | None]:
        """What this user's choices before this one said of it, and the other user's."""
        with self._database.read() as session:
            texts = queries.texts_of(session, pair.pair_id)
            if texts is None:
                return None, None
            mine = taste_of(session, pair.user_id, before=pair.pair_id)
            theirs = STRANGER
            if wrong_id is not None:
                theirs = taste_of(session, wrong_id, before=pair.pair_id)
        return _said(mine, texts), _said(theirs, texts)

    def _reference(self, pair: PreferencePair) -> tuple[float, float]:
        chosen, rejected = pair.chosen.reference_logp_nats, pair.rejected.reference_logp_nats
        if chosen is not None and rejected is not None:
            return chosen, rejected
        return self._logps(pair, Condition.BASE)

    def _personal(
        self, pair: PreferencePair, reference: tuple[float, float], user_id: int, profile: str
    ) -> float:
        """The margin as that user is served: their vector, and their profile if they have one."""
        asked = replace(pair, messages=personal_messages(pair.messages, profile))
        return self._margin(reference, self._logps(asked, Condition.PERSONAL, user_id))

    def _margin(self, reference: tuple[float, float], logps: tuple[float, float]) -> float:
        margin = (logps[0] - logps[1]) - (reference[0] - reference[1])
        if not math.isfinite(margin):
            raise ValueError("a log-prob is not finite")
        # e₀ may be the base model to the bit; what is less than a thousandth is rounding.
        return round(margin, 3)

    def _logps(
        self, pair: PreferencePair, condition: Condition, user_id: int | None = None
    ) -> tuple[float, float]:
        """Summed log-probs (nats) of the chosen and the rejected response."""
        responses = (pair.chosen.token_ids, pair.rejected.token_ids)
        chosen, rejected = self._engine.score(pair.messages, responses, condition, user_id)
        return chosen, rejected

    def _vector_holders(self, version_id: int) -> frozenset[int]:
        if self._holders is None or self._holders[0] != version_id:
            with self._database.read() as session:
                holders = vector_holders(queries.lineage(session), queries.users_trained(session))
            self._holders = version_id, holders.get(version_id, frozenset())
        return self._holders[1]

    def _note_failure(self, pair: PreferencePair, error: Exception) -> None:
        self._failures[pair.pair_id] += 1
        final = isinstance(error, ValueError) or self._failures[pair.pair_id] == _TRIES
        if final:
            self._given_up.add(pair.pair_id)
        way = "will not be" if final else "is not yet"
        _log.warning("choice %s %s scored: %s", pair.pair_id, way, error)

    def _store(self, pair: PreferencePair, margins: Margins) -> None:
        """One row, unless the choice was scored, taken back or learnt from meanwhile."""
        try:
            with self._database.write() as session:
                choice = queries.lock_to_score(session, pair.pair_id)
                if choice is None:
                    return
                session.add(
                    PrequentialScore(
                        choice_id=choice.id,
                        user_id=choice.user_id,
                        version_id=margins.version_id,
                        nth=queries.pairs_before(session, choice),
                        personal_nats=margins.personal,
                        generic_nats=margins.generic,
                        wrong_nats=margins.wrong,
                        wrong_user_id=margins.wrong_user_id,
                        personal_taste_nats=margins.personal_taste,
                        wrong_taste_nats=margins.wrong_taste,
                        scored_at=self._clock(),
                    )
                )
                responses = (pair.chosen.response_id, pair.rejected.response_id)
                references = dict(zip(responses, margins.reference, strict=True))
                round_input.store_reference(session, self._engine.model_identity, references)
        except IntegrityError:
            _log.info("choice %s was scored by another process", pair.pair_id)


def wrong_user(choice_id: int, user_id: int, holders: Collection[int]) -> int | None:
    """Somebody else with a vector, the same whenever this choice is asked about; None if nobody."""
    others = sorted(set(holders) - {user_id})
    return random.Random(choice_id).choice(others) if others else None  # noqa: S311 — no secret


def _said(taste: TasteModel, texts: tuple[str, str]) -> float | None:
    return round(taste.log_odds(*texts), 3) if taste.choices else None
