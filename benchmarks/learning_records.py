"""What simulated users have chosen so far: it draws, foresees and ranks, and becomes vectors."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from backend.styles import Style, draw_styles, style_shares
from backend.taste_model import TasteModel, taste_from


@dataclass(slots=True)
class ChoiceRecords:
    """Every user's choices as texts, (preferred, passed over); plain data, kept between rounds."""

    styles: Sequence[Style]
    by_user: dict[int, list[tuple[str, str]]] = field(default_factory=dict)

    def draw(self, user: int | None, rng: random.Random) -> tuple[Style, Style]:
        """The two styles of this user's next pair; None is for everybody."""
        return draw_styles(self.styles, taste_from([]) if user is None else self.of(user), rng)

    def remember(self, user: int, preferred: str, other: str) -> None:
        """Keep one choice."""
        self.by_user.setdefault(user, []).append((preferred, other))

    def of(self, user: int) -> TasteModel:
        """This user's taste model."""
        return taste_from(self.by_user.get(user, []))

    def of_all(self) -> TasteModel:
        """The taste model of everybody's choices as if one person had made them."""
        return taste_from([choice for choices in self.by_user.values() for choice in choices])

    def shares(self, user: int) -> Tensor:
        """(K,), how much of each style the user's vector gets."""
        return torch.tensor(style_shares(self.styles, self.of(user)))

    def said(self, user: int, preferred: str, other: str) -> float:
        """What a user's choices said of one before it was made, nats; above 0 if rightly."""
        return round(self.of(user).log_odds(preferred, other), 4)

    def said_by_all(self, preferred: str, other: str) -> float:
        """The same by everybody's choices together."""
        return round(self.of_all().log_odds(preferred, other), 4)
