"""How styles fared with each simulated user: what is drawn next, foreseen and made into vectors."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from backend.styles import Record, Style, draw_styles, log_odds


@dataclass(slots=True)
class StyleRecords:
    """Wins and losses of styles by user; plain data, kept between rounds."""

    styles: Sequence[Style]
    by_user: dict[int | None, dict[str, Record]] = field(default_factory=dict)

    def draw(self, user: int | None, rng: random.Random) -> tuple[Style, Style]:
        """The two styles of this user's next pair."""
        return draw_styles(self.styles, self.by_user.get(user, {}), rng)

    def remember(self, user: int, won: Style, lost: Style) -> None:
        """Count one choice; between texts of one style it says nothing."""
        if won == lost:
            return
        mine = self.by_user.setdefault(user, {})
        old = mine.get(won.name, Record())
        mine[won.name] = Record(old.won + 1, old.lost)
        old = mine.get(lost.name, Record())
        mine[lost.name] = Record(old.won, old.lost + 1)

    def of(self, user: int) -> Tensor:
        """(S, 2), how often each style won and lost."""
        known = self.by_user.get(user, {})
        fared = [known.get(style.name, Record()) for style in self.styles]
        return torch.tensor([[float(record.won), float(record.lost)] for record in fared])

    def of_all(self, users: Iterable[int]) -> Tensor:
        """(S, 2), everybody's counts together."""
        return torch.stack([self.of(user) for user in users]).sum(0)

    def said(self, user: int, won: Style, lost: Style) -> float:
        """What a user's record said of a choice before it was made, nats; above 0 if rightly."""
        return round(log_odds(self.by_user.get(user, {}), won.name, lost.name), 4)

    def said_by_all(self, won: Style, lost: Style) -> float:
        """The same by everybody's records together."""
        together: dict[str, Record] = {}
        for records in self.by_user.values():
            for name, record in records.items():
                known = together.get(name, Record())
                together[name] = Record(known.won + record.won, known.lost + record.lost)
        return round(log_odds(together, won.name, lost.name), 4)
