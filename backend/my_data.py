"""Everything a user gave and everything made from it, as JSON Lines, a few rows at a time.

What would tell which side is whose is left out of pairs that the user has not judged yet, and of
the others it is noted that the user was told: a later verdict on them is not blind. Knows no page.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy.orm import Session

from backend.errors import NotFound
from backend.vector_files import VectorFiles
from backend.wording import msg
from db.models import Choice, Comparison, PrequentialScore, Response
from db.queries import my_data as queries
from db.queries.users import user_by_id
from db.session import Database

FORMAT = "attune-my-data/1"
_AT_ONCE = 100  # rows: so many are in memory, and no transaction is open while they are sent
_NO_USER = msg("There is no such account.")

Record = dict[str, Any]
Row = TypeVar("Row", Comparison, Choice, PrequentialScore)


class MyData:
    """Reads one user's data."""

    def __init__(
        self,
        database: Database,
        vectors: VectorFiles | None,
        *,
        clock: Callable[[], datetime],
    ) -> None:
        """Begin.

        Args:
            vectors: None with an engine that keeps none.
        """
        self._database = database
        self._vectors = vectors
        self._clock = clock

    def lines(self, user_id: int) -> Iterator[str]:
        """One JSON object a line; the last one counts them, so that a torn file can be told."""
        count = 0
        for record in self._records(user_id):
            count += 1
            yield _line(record)
        yield _line({"kind": "end", "lines": count})

    def _records(self, user_id: int) -> Iterator[Record]:
        yield {"kind": "about", "format": FORMAT, "made_at": self._clock()}
        with self._database.read() as session:
            records = [_account(session, user_id), *_said(session, user_id)]
        yield from records
        write, read = self._database.write, self._database.read
        yield from _batches(write, user_id, queries.comparisons, self._comparisons)
        yield from _batches(read, user_id, queries.choices, _choices)
        yield from _batches(read, user_id, queries.scores, _scores)
        vector = self._vectors.read(user_id) if self._vectors is not None else None
        if vector is not None:
            yield {"kind": "vector", "version": vector.version_id, "values": vector.values}

    def _comparisons(self, session: Session, rows: Sequence[Comparison]) -> list[Record]:
        answered = queries.answered(session, [row.id for row in rows])
        for row in rows:
            if row.id in answered and row.revealed_at is None:
                row.revealed_at = self._clock()
        return [_comparison(row, row.id in answered) for row in rows]


def _batches(
    session_of: Callable[[], AbstractContextManager[Session]],
    user_id: int,
    read: Callable[[Session, int, int, int], Sequence[Row]],
    records: Callable[[Session, Sequence[Row]], list[Record]],
) -> Iterator[Record]:
    after = 0
    while True:
        with session_of() as session:
            rows = read(session, user_id, after, _AT_ONCE)
            made = records(session, rows)
        yield from made
        if len(rows) < _AT_ONCE:
            return
        last = rows[-1]
        after = last.choice_id if isinstance(last, PrequentialScore) else last.id


def _account(session: Session, user_id: int) -> Record:
    user = user_by_id(session, user_id)
    if user is None:
        raise NotFound(_NO_USER)
    return {
        "kind": "account",
        "name": user.username,
        "role": user.role,
        "guest": user.is_guest,
        "hugging_face": user.hf_subject,
        "profile": user.profile,
        "language": user.language,
        "daily_goal": user.daily_goal,
        "keys_off": user.keys_off,
        "liked_topics": user.liked_topics or [],
        "created_at": user.created_at,
        "seen_at": user.seen_at,
        "introduced_at": user.introduced_at,
        "consented_at": user.consented_at,
        "consented_to_sha256": user.consented_to,
    }


def _said(session: Session, user_id: int) -> Iterator[Record]:
    for prompt in queries.own_prompts(session, user_id):
        yield {
            "kind": "own_prompt",
            "prompt": prompt.id,
            "text": prompt.text,
            "earlier": prompt.earlier or [],
            "asked_at": prompt.created_at,
        }
    for refused, text in queries.unwanted(session, user_id):
        yield {"kind": "unwanted_prompt", "text": text, "since": refused.created_at}
    for visit in queries.sessions(session, user_id):
        yield {
            "kind": "session",
            "began_at": visit.created_at,
            "expires_at": visit.expires_at,
            "ended_at": visit.revoked_at,
        }


def _comparison(row: Comparison, answered: bool) -> Record:
    record: Record = {
        "kind": "comparison",
        "comparison": row.id,
        "prompt": row.prompt.text,
        "earlier": row.prompt.earlier or [],
        "topic": row.prompt.topic,
        "made_at": row.created_at,
        "shown_at": row.shown_at,
        "answered": answered,
        "responses": [_response(response, answered) for response in row.responses],
    }
    if answered:
        record |= {
            "purpose": row.purpose,
            "repeats": row.repeat_of_id,
            "continues": row.continues_id,
            "stopped_at": row.stopped_at,
            "revealed_at": row.revealed_at,
        }
    return record


def _response(row: Response, answered: bool) -> Record:
    record: Record = {"side": row.side, "text": row.text}
    if answered:
        record |= {
            "condition": row.condition,
            "style": row.style,
            "profile": row.profile,
            "version": row.version_id,
            "ended": row.ended,
            "seed": row.seed,
            "drafts": row.drafts,
            "temperature": row.temperature,
            "top_p": row.top_p,
            "max_new_tokens": row.max_new_tokens,
        }
    return record


def _choices(session: Session, rows: Sequence[Choice]) -> list[Record]:
    uses: dict[int, list[Record]] = {row.id: [] for row in rows}
    for choice_id, round_id, use, status in queries.uses(session, list(uses)):
        uses[choice_id].append({"round": round_id, "use": use, "ended": status})
    return [
        {
            "kind": "choice",
            "choice": row.id,
            "comparison": row.comparison_id,
            "verdict": row.verdict,
            "strength": row.strength,
            "reason": row.reason,
            "decided_ms": row.decided_ms,
            "supersedes": row.supersedes_id,
            "chosen_at": row.created_at,
            "used_by": uses[row.id],
        }
        for row in rows
    ]


def _scores(_session: Session, rows: Sequence[PrequentialScore]) -> list[Record]:
    return [
        {
            "kind": "prequential_score",
            "choice": row.choice_id,
            "version": row.version_id,
            "pairs_before": row.nth,
            "personal_nats": row.personal_nats,
            "generic_nats": row.generic_nats,
            "wrong_nats": row.wrong_nats,
            "personal_taste_nats": row.personal_taste_nats,
            "wrong_taste_nats": row.wrong_taste_nats,
            "scored_at": row.scored_at,
        }
        for row in rows
    ]


def _line(record: Record) -> str:
    return json.dumps(record, ensure_ascii=False, default=_plain) + "\n"


def _plain(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(type(value).__name__)
