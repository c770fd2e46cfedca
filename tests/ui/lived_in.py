"""Choices as somebody with a taste may have made them, written straight into a running app."""

from __future__ import annotations

import hashlib
import random

from db.models import Comparison, Prompt, Response, User
from tests.backend.judged import Judged

ECHO = hashlib.sha256(b"echo").hexdigest()
WORDS = (
    "run rest walk eat, drink sleep slowly often because perhaps then 12 (daily) the and of they "
    "it We runners shoes morning! not training? begin after"
)


def user_of(judged: Judged, name: str) -> int:
    with judged.database.read() as session:
        return session.query(User).filter_by(username=name).one().id


def texts(rng: random.Random) -> tuple[str, str]:
    """Two texts, first the one that suits somebody who likes short ones that say “you”."""

    def text() -> tuple[float, str]:
        words = rng.choices(WORDS.split(), k=rng.randrange(8, 40))
        to_you = rng.random() < 0.5
        suits = -len(words) / 9 + 1.6 * to_you
        return suits, " ".join([*words, *(["you", "your"] if to_you else [])]) + "."

    (_, better), (_, worse) = sorted((text(), text()), reverse=True)
    return better, worse


def written(judged: Judged, comparison: int, preferred: str, rng: random.Random) -> None:
    """Texts for it, the better one on the side preferred."""
    better, worse = texts(rng)
    with judged.database.write() as session:
        for one in session.query(Response).filter_by(comparison_id=comparison):
            one.text = better if one.side.lower() == preferred else worse


def lived_in(judged: Judged, name: str) -> None:
    """54 choices as somebody may have made them after two hours, for the pictures; all invented."""
    user, version = user_of(judged, name), judged.version(ECHO)
    rng, wording = random.Random(4), random.Random(0)
    with judged.database.read() as session:
        bank = [text for (text,) in session.query(Prompt.text).filter_by(owner_id=None).limit(54)]
    for number, text in enumerate(bank):
        blind = number % 5 == 4
        conditions = ("personal", "generic") if blind else ("personal", "personal")
        purpose = "blind" if blind else "learn"
        pair = judged.comparison(user, version, purpose=purpose, conditions=conditions)
        verdict = "a" if blind else rng.choice("aaabb")
        choice = judged.choice(user, pair, verdict)
        written(judged, pair, verdict, wording)
        chances = (0.55 + 0.008 * number, 0.55, 0.5)
        yours, everyones, others = (1.0 if rng.random() < chance else -1.0 for chance in chances)
        judged.score(choice, version, (yours, everyones, others), nth=number)
        with judged.database.write() as session:
            asked = session.get_one(Comparison, pair).prompt_id
            session.get_one(Prompt, asked).text = text
            session.get_one(User, user).profile = "Short answers that say what to do first."
            if blind:
                session.query(Response).filter_by(comparison_id=pair, side="A").update(
                    {Response.profile: "short"}
                )
