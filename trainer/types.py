"""What goes into a round and what comes out: plain records, no torch, no database.

The records cross a process boundary as JSON (`to_json` / `from_json`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Literal, TypedDict

from trainer.config import TrainConfig

RoundKind = Literal["full", "vector"]
StyleShares = tuple[float, ...]  # how much of each style direction goes into a user's vector


class Message(TypedDict):
    """One turn of a prompt."""

    role: Literal["system", "user", "assistant"]
    content: str


class Condition(StrEnum):
    """Whose taste a response is made for."""

    PERSONAL = "personal"  # adapter and the user's vector e_u
    GENERIC = "generic"  # adapter and the shared vector e₀
    BASE = "base"  # no adapter, no vector: π_ref


@dataclass(frozen=True, slots=True)
class ResponseTokens:
    """One response as the trainer sees it.

    Attributes:
        response_id: the caller's key; reference log-probs come back under it.
        token_ids: response tokens, the end-of-turn token included when the response ended.
        reference_logp_nats: summed log π_ref(y|x) if already known.
    """

    response_id: int
    token_ids: tuple[int, ...]
    reference_logp_nats: float | None = None


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """Chosen and rejected response to one prompt, by one user.

    Attributes:
        pair_id: the caller's key (the choice).
        user_id: integer key of the user; never parsed from text.
        messages: the prompt, earlier turns included; the last message is the user's.
        profile: what the user had written about themselves when the responses were made; stands
            in the prompt of the personal condition only (`prompting.personal_messages`).
    """

    pair_id: int
    user_id: int
    messages: tuple[Message, ...]
    chosen: ResponseTokens
    rejected: ResponseTokens
    profile: str = ""

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> PreferencePair:
        return cls(
            pair_id=data["pair_id"],
            user_id=data["user_id"],
            messages=tuple(data["messages"]),
            chosen=_response_from_json(data["chosen"]),
            rejected=_response_from_json(data["rejected"]),
            profile=data["profile"],
        )


def _response_from_json(data: dict[str, Any]) -> ResponseTokens:
    return ResponseTokens(
        data["response_id"], tuple(data["token_ids"]), data["reference_logp_nats"]
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundRequest:
    """Everything one round needs.

    Attributes:
        round_id: names the round's directory.
        kind: `full`, or `vector`: only what is the pairs' users' own learns, and fast.
        pairs: new and replayed pairs, trained on.
        held_out: pairs never trained on, for the gate.
        probe_prompts: prompts for the gate's generated texts.
        parent: directory of the version to go on from.
        output: directory the round is written to; must not exist yet.
        config: the recipe.
        style_shares: user id → how much of each style, in the order of the directions; only of
            users who learn here. For the styled user model.
    """

    round_id: int
    pairs: tuple[PreferencePair, ...]
    held_out: tuple[PreferencePair, ...]
    probe_prompts: tuple[tuple[Message, ...], ...]
    parent: str
    output: str
    config: TrainConfig
    kind: RoundKind = "full"
    style_shares: Mapping[int, StyleShares] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        shares = {str(user): own for user, own in self.style_shares.items()}
        return asdict(self) | {"style_shares": shares}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> RoundRequest:
        """What `to_json` made. Raises ValueError: style shares that are none."""
        return cls(
            round_id=data["round_id"],
            pairs=tuple(PreferencePair.from_json(p) for p in data["pairs"]),
            held_out=tuple(PreferencePair.from_json(p) for p in data["held_out"]),
            probe_prompts=tuple(tuple(messages) for messages in data["probe_prompts"]),
            parent=data["parent"],
            output=data["output"],
            config=TrainConfig.from_json(data["config"]),
            kind=data["kind"],
            style_shares={
                int(user): _style_shares_from_json(user, own)
                for user, own in data["style_shares"].items()
            },
        )


def _style_shares_from_json(user: str, data: Any) -> StyleShares:
    """JSON cannot be trusted to hold finite numbers."""
    numbers = isinstance(data, list) and all(type(share) in {int, float} for share in data)
    if not numbers or not all(math.isfinite(share) for share in data):
        raise ValueError(f"the style shares of user {user} must be numbers, not {data}")
    return tuple(float(share) for share in data)


class Phase(StrEnum):
    """Where a round is."""

    REFERENCE = "reference"
    TRAIN = "train"
    GATE = "gate"
    SAVE = "save"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One report while a round runs; `figures` holds that step's metrics (loss, accuracy, …)."""

    phase: Phase
    step: int
    steps: int
    figures: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class GateReport:
    """Whether a round may go live, why not, and the figures it was judged by.

    Attributes:
        passed: True when no reason stands against it.
        reasons: sentences a researcher can read.
        figures: every number measured, by name.
        samples: generated probe texts: user_id (None: base), prompt, text.
    """

    passed: bool
    reasons: tuple[str, ...]
    figures: dict[str, float]
    samples: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundResult:
    """What a finished round reports.

    Attributes:
        artifact: the directory written, in place and fsynced.
        manifest_sha256: checksum of its manifest.
        gate: the verdict.
        curve: one record of figures per optimizer step.
        reference_logps_nats: response_id → summed log π_ref, for those not known before.
        train_s: seconds spent training, gate and saving not included.
    """

    artifact: str
    manifest_sha256: str
    gate: GateReport
    curve: tuple[dict[str, float], ...]
    reference_logps_nats: dict[int, float]
    train_s: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> RoundResult:
        gate = data["gate"]
        return cls(
            artifact=data["artifact"],
            manifest_sha256=data["manifest_sha256"],
            gate=GateReport(
                passed=gate["passed"],
                reasons=tuple(gate["reasons"]),
                figures=gate["figures"],
                samples=tuple(gate["samples"]),
            ),
            curve=tuple(data["curve"]),
            reference_logps_nats={int(k): v for k, v in data["reference_logps_nats"].items()},
            train_s=data["train_s"],
        )


class RoundFailed(Exception):
    """A round could not be finished (non-finite numbers, damaged parent); nothing was promoted."""
