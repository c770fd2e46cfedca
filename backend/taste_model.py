"""What a user's choices say of the texts that user likes: weights over traits, with their doubt.

A choice of y⁺ over y⁻ is taken as drawn from a logistic model of the difference of their traits
(Bradley-Terry, as in a reward model),

    P(y⁺ ≻ y⁻) = σ(w · (t(y⁺) − t(y⁻))),        wⱼ ~ Cauchy(0, sⱼ) before any choice.

People care about a few traits and not about the others, which a Cauchy prior says (Gelman et al.,
2008, arXiv 0901.4011): most weights are small, some are not. As a normal prior whose precision is
itself unknown, wⱼ ~ N(0, 1/λⱼ) with λⱼ ~ Gamma(½, sⱼ²/2), it is fitted by variational Bayes
(Bishop, 2006, 10.3 and 10.5; Laplace's approximation of the choices' likelihood): in turn w's
normal posterior given the λⱼ, and E[λⱼ] = 1 / (½sⱼ² + ½E[wⱼ²]) from it. Every choice speaks of
every trait, whatever styles or vectors made its responses, so twenty of them already tell most
opposed tastes apart. What no trait holds, P-DPO has to learn.

Pure. Knows nothing of databases, styles and engines.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from backend.traits import COUNT, TOLD, Vector, traits_of

# s, nats per unit of a trait: any one of the many word counts is less likely to matter.
_SCALE_TOLD, _SCALE_COUNTED = 0.45, 0.2
_SCALES = np.where(np.arange(COUNT) < len(TOLD), _SCALE_TOLD, _SCALE_COUNTED)
_STEPS = 200  # each one of Newton's method, and new precisions; 20 to 60 are usual
_CLOSE = 1e-5  # nats


@dataclass(frozen=True, slots=True)
class TasteModel:
    """A user's posterior over weights; a stranger's is the prior.

    Attributes:
        weights: its mean (T,), nats per unit of a trait.
        covariance: (T, T).
        precision: (T,), E[λ]: how surely each weight is near 0, whatever is chosen.
        choices: how many it was made from.
    """

    weights: Vector
    covariance: Vector
    precision: Vector
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


STRANGER = TasteModel(np.zeros(COUNT), np.diag(_SCALES**2), _SCALES**-2.0, 0)


def taste_from(choices: Sequence[tuple[str, str]], *, traits: int = COUNT) -> TasteModel:
    """The taste behind some choices, each as (preferred text, text passed over).

    Args:
        traits: only so many of them, the first ones, as if there were no others; a stranger's
            has all.
    """
    if not choices:
        return STRANGER
    differences = np.stack([traits_of(mine) - traits_of(other) for mine, other in choices])
    return fitted(differences[:, :traits])


def fitted(differences: Vector) -> TasteModel:
    """The taste of somebody who chose the former of two texts that differ so, (N, T), N ≥ 1."""
    scales = _SCALES[: differences.shape[1]]
    weights, precision = np.zeros(len(scales)), scales**-2.0
    for _ in range(_STEPS):
        chances = 1 / (1 + np.exp(-differences @ weights))
        slope = differences.T @ (1 - chances) - precision * weights
        curvature = _curvature(differences, chances, precision)
        step = np.linalg.solve(curvature, slope)
        weights = weights + step
        if np.abs(step).max() < _CLOSE:
            break
        precision = 2 / (scales**2 + weights**2 + np.diag(np.linalg.inv(curvature)))
    chances = 1 / (1 + np.exp(-differences @ weights))
    covariance = np.linalg.inv(_curvature(differences, chances, precision))
    return TasteModel(weights, (covariance + covariance.T) / 2, precision, len(differences))


def _curvature(differences: Vector, chances: Vector, precision: Vector) -> Vector:
    """Minus the second derivative of the log-posterior, (T, T)."""
    weighted = differences * (chances * (1 - chances))[:, None]
    return differences.T @ weighted + np.diag(precision)
