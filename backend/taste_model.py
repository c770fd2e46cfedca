"""What a user's choices say of the texts that user likes: weights over traits, with their doubt.

A choice of y⁺ over y⁻ is taken as drawn from a logistic model of the difference of their traits
(Bradley-Terry, as in a reward model),

    P(y⁺ ≻ y⁻) = σ(w · (t(y⁺) − t(y⁻))),        w ~ N(0, 1/λ) before any choice,

and w's posterior is taken as normal around its largest value (Laplace's approximation; MacKay,
1992). Every choice speaks of every trait, whatever styles or vectors made its responses, so twenty
of them already tell most opposed tastes apart. What no trait names, P-DPO has to learn.

Pure. Knows nothing of databases, styles and engines.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from backend.traits import COUNT, Vector, traits_of

_PRECISION = 1.0  # λ, per unit of a trait
_STEPS = 25  # of Newton's method; five are usual
_CLOSE = 1e-8


@dataclass(frozen=True, slots=True)
class TasteModel:
    """A user's posterior over weights; a stranger's is the prior.

    Attributes:
        weights: its mean (T,), nats per unit of a trait.
        covariance: (T, T).
        choices: how many it was made from.
    """

    weights: Vector
    covariance: Vector
    choices: int

    def log_odds(self, preferred: str, other: str) -> float:
        """How much likelier `preferred` was to be chosen, nats; 0 for a stranger.

        Drawn towards 0 by what is not known yet (MacKay's approximation of the logistic integral).
        """
        difference = traits_of(preferred) - traits_of(other)
        spread = float(difference @ self.covariance @ difference)
        return float(difference @ self.weights) / math.sqrt(1 + math.pi * spread / 8)

    def utility(self, text: str) -> float:
        """How well a text suits, nats; only differences between texts mean anything."""
        return float(traits_of(text) @ self.weights)

    def draws(self, count: int, rng: random.Random) -> Vector:
        """(count, T) weights as they may be: the posterior, sampled."""
        own = np.random.default_rng(rng.getrandbits(64))
        return own.multivariate_normal(self.weights, self.covariance, size=count, method="cholesky")


STRANGER = TasteModel(np.zeros(COUNT), np.eye(COUNT) / _PRECISION, 0)


def taste_from(choices: Sequence[tuple[str, str]]) -> TasteModel:
    """The taste behind some choices, each as (preferred text, text passed over)."""
    if not choices:
        return STRANGER
    differences = np.stack([traits_of(mine) - traits_of(other) for mine, other in choices])
    weights = np.zeros(COUNT)
    for _ in range(_STEPS):
        chances = 1 / (1 + np.exp(-differences @ weights))
        slope = differences.T @ (1 - chances) - _PRECISION * weights
        step = np.linalg.solve(_curvature(differences, chances), slope)
        weights = weights + step
        if np.abs(step).max() < _CLOSE:
            break
    chances = 1 / (1 + np.exp(-differences @ weights))
    covariance = np.linalg.inv(_curvature(differences, chances))
    return TasteModel(weights, (covariance + covariance.T) / 2, len(choices))


def _curvature(differences: Vector, chances: Vector) -> Vector:
    """Minus the second derivative of the log-posterior, (T, T)."""
    weighted = differences * (chances * (1 - chances))[:, None]
    return differences.T @ weighted + _PRECISION * np.eye(COUNT)
