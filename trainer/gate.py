"""May a round go live? Figures in, reasons out; measuring them is `trainer.measuring`'s work.

The rules, for figures of the round (candidate) and of the version it started from (parent):

1. Every number of adapter and user vectors is finite.
2. What belongs to users who did not take part is the parent's, bit for bit.
3. Held-out pairs: the mean rise of the DPO loss, candidate over parent, pair by pair, is at most
   tolerance + 2·s/√n, where n is the number of pairs and s the standard deviation of the rises,
   taken as at least `held_out_spread_nats`: few pairs must be much worse, many only a little. The
   same for the worst-off user and for the oldest user (whose latest choice is longest ago), each
   counted only with `held_out_min_pairs` pairs. Without held-out pairs there is nothing to judge.
   Where their responses ended, chosen or not, the end of turn is under nobody's vector more than
   `max_end_logp_drop_nats` less likely than under the parent's: probe texts are too short to show
   that somebody's no longer end.
4. The round's own pairs: under a user's own vector their mean DPO loss is at most
   `max_own_over_unlearnt_nats` above that under the same vector without what was learnt for this
   user (e₀, and the styles mixed in), and at most `max_own_over_parent_nats` above the parent's,
   for each user with at least three of them, and for those together who have fewer (with everybody
   where even together they have fewer than three). What suits a user worse than nothing, or worse
   than before, even on what it was learnt from, is somebody else's, or was learnt the wrong way
   round. What suits one user worse than nothing a round unlearns by itself (`trainer.round`); this
   refuses what went wrong otherwise. Shares of styles are not learnt from likelihoods and are not
   judged by them here: they are the same on both sides.
5. The same pairs' chosen responses: their mean log-prob per token under their users' vectors has
   not fallen more than `max_chosen_logp_drop_nats` below the reference's (likelihood
   displacement). Where at least three of them ended, what was learnt has not made the end of turn
   more than `max_end_logp_drop_nats` less likely, shares of styles again left out: whoever likes
   it long shall be served long texts, and one text does not say that none ends.
6. Probe texts of every writer (generic user, touched users, one who did not take part) against the
   base model's own to the same prompts: likely under the base model, of comparable length, not
   repeating, none empty.
   Likely: negative log-likelihood per token at most `max_nll_rise_nats` + 2·s·√(1/n + 1/m) above
   the base model's, with n and m texts and s = `text_spread_nats`, the spread between sound texts
   (not that of the texts at hand: garbage spreads widely and would excuse itself). Whose texts
   are by `doubtful_nll_rise_nats` and chance above the base model's writes more of them, as they
   are and under the parent; the first may be by `max_round_nll_rise_nats` and chance above the
   second. Who has long been served a rare style, by whatever means, may go on so; one round may not
   add much. Where nothing else speaks against a round, it is taken back for such a user
   (`ill_alone`, `trainer.round`).
   Both sides share one length limit, and a text cut there counts as that long on both sides.
7. The base model's own texts are, under every writer, at most `max_drift_nats` less likely per
   token. The same texts are compared; which texts they are still matters (see dev/LOG.md).

A comparison with an undefined number refuses. Knows nothing of torch, models and files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from trainer.config import GateConfig
from trainer.gate_texts import TextFigures, chance_nats, round_reasons, text_reasons, who_wrote
from trainer.types import PreferencePair

FEW_PAIRS = 3  # fewer say nothing of a user


@dataclass(frozen=True, slots=True)
class HeldOutPair:
    """One pair never trained on, under its user's vector.

    Attributes:
        parent_nats, candidate_nats: its DPO loss.
        end_logp_change: log-prob of the end of turn, candidate − parent, nats, mean of the
            responses that ended; None where neither did.
    """

    user_id: int
    parent_nats: float
    candidate_nats: float
    end_logp_change: float | None


@dataclass(frozen=True, slots=True)
class RoundPair:
    """One pair the round was trained on, after it.

    Attributes:
        parent_nats, own_nats: DPO loss under the user's vector, before and after.
        unlearnt_nats: the same after, without what was learnt for the user.
        chosen_logp_change: of the chosen response, nats per token, against π_ref.
        end_logp_change: of the chosen response's end of turn, nats: what was learnt for the user
            against without it, and what everybody shares against π_ref; None where it has none.
    """

    user_id: int
    parent_nats: float
    own_nats: float
    unlearnt_nats: float
    chosen_logp_change: float
    end_logp_change: float | None

    @property
    def over_unlearnt_nats(self) -> float:
        """How much worse it suits than without what was learnt."""
        return self.own_nats - self.unlearnt_nats

    @property
    def over_parent_nats(self) -> float:
        """How much worse it suits than before the round."""
        return self.own_nats - self.parent_nats


@dataclass(frozen=True, slots=True, kw_only=True)
class GateFigures:
    """All a round is judged by.

    Attributes:
        nonfinite: names of tensors with a number that is not finite.
        altered: users who did not take part, and yet are not what they were.
        held_out: one record per held-out pair.
        oldest_user: whose latest choice is longest ago; None without pairs.
        round_pairs: some of the pairs trained on.
        base_texts: figures of the base model's own texts; None when texts could not be made.
        texts: the same by writer: `generic`, `user 7`, ….
        more_texts: what writers `in_doubt` wrote besides, for a surer mean.
        parent_texts: as many as both, under the parent.
        drift_nats: by writer, how much less likely per token the base model's own texts are.
    """

    nonfinite: tuple[str, ...]
    altered: tuple[int, ...]
    held_out: tuple[HeldOutPair, ...]
    oldest_user: int | None
    round_pairs: tuple[RoundPair, ...]
    base_texts: TextFigures | None
    texts: Mapping[str, TextFigures]
    more_texts: Mapping[str, TextFigures]
    parent_texts: Mapping[str, TextFigures]
    drift_nats: Mapping[str, float]


def judge(figures: GateFigures, config: GateConfig) -> tuple[str, ...]:
    """Why the round must not go live, in sentences; empty when it may."""
    reasons = []
    if figures.nonfinite:
        count, first = len(figures.nonfinite), figures.nonfinite[0]
        reasons.append(f"{count} tensors hold numbers that are not finite, first {first}")
    if figures.altered:
        who = ", ".join(str(user) for user in figures.altered)
        reasons.append(f"users who did not take part have been changed or lost: {who}")
    reasons.extend(_held_out_reasons(figures, config))
    reasons.extend(_round_pair_reasons(figures, config))
    if figures.base_texts is not None:
        for writer in figures.texts:
            reasons.extend(_reasons_of_texts(writer, figures, config))
        for writer, drift in figures.drift_nats.items():
            if not drift <= config.max_drift_nats:
                who = who_wrote(writer)
                reasons.append(
                    f"{who}: the base model's own texts are {drift:.2f} nats per token "
                    f"less likely, at most {config.max_drift_nats:.2f} allowed"
                )
    return tuple(reasons)


def ill_alone(figures: GateFigures, config: GateConfig) -> tuple[str, ...]:
    """Users whose own texts, and nothing else, keep the round from going live; nobody else's do."""
    ill = {w for w in figures.texts if _reasons_of_texts(w, figures, config)}
    ill |= {w for w, drift in figures.drift_nats.items() if not drift <= config.max_drift_nats}
    ill.discard("generic")
    texts = {writer: own for writer, own in figures.texts.items() if writer not in ill}
    drift = {writer: nats for writer, nats in figures.drift_nats.items() if writer not in ill}
    others = replace(figures, texts=texts, drift_nats=drift)
    return () if judge(others, config) else tuple(sorted(ill))


def in_doubt(figures: GateFigures, config: GateConfig) -> tuple[str, ...]:
    """Writers of unlikely texts that nothing else speaks against: were they so before the round?"""
    base = figures.base_texts
    return tuple(
        writer
        for writer, texts in figures.texts.items()
        if base is not None
        and not text_reasons(writer, texts, base, config)
        and texts.nll_nats - base.nll_nats
        > config.doubtful_nll_rise_nats + chance_nats(texts.texts, base.texts, config)
    )


def oldest_user(pairs: Sequence[PreferencePair]) -> int | None:
    """The user whose newest pair has the lowest id (ids grow with time); None without pairs."""
    newest: dict[int, int] = {}
    for pair in pairs:
        newest[pair.user_id] = max(pair.pair_id, newest.get(pair.user_id, pair.pair_id))
    return min(newest, key=lambda user: newest[user], default=None)


def named_figures(figures: GateFigures) -> dict[str, float]:
    """Every figure by a flat name; numbers that are not finite are left out (JSON has none)."""
    held_out = figures.held_out
    named: dict[str, float] = {
        "nonfinite_tensors": len(figures.nonfinite),
        "held_out_pairs": len(held_out),
        "altered_users": len(figures.altered),
    }
    if figures.round_pairs:
        pairs = figures.round_pairs
        named["chosen_logp_change"] = _mean([p.chosen_logp_change for p in pairs])
        named["round_loss"] = _mean([p.own_nats for p in pairs])
        named["round_loss_parent"] = _mean([p.parent_nats for p in pairs])
        named["round_loss_unlearnt"] = _mean([p.unlearnt_nats for p in pairs])
        if ends := end_changes(pairs):
            named["end_logp_change"] = _mean(ends)
    if held_out:
        named["held_out_loss_parent"] = _mean([p.parent_nats for p in held_out])
        named["held_out_loss"] = _mean([p.candidate_nats for p in held_out])
    writers = dict(figures.texts)
    if figures.base_texts is not None:
        writers["base"] = figures.base_texts
    for writer, texts in writers.items():
        stem = writer.replace(" ", "_")
        named[f"{stem}_tokens"] = texts.mean_tokens
        named[f"{stem}_nll_nats"] = texts.nll_nats
        named[f"{stem}_repetition"] = texts.repetition
        named[f"{stem}_empty"] = texts.empty
        if writer in figures.parent_texts:
            named[f"{stem}_more_nll_nats"] = figures.more_texts[writer].nll_nats
            named[f"{stem}_parent_nll_nats"] = figures.parent_texts[writer].nll_nats
        if writer in figures.drift_nats:
            named[f"{stem}_drift_nats"] = figures.drift_nats[writer]
    return {name: value for name, value in named.items() if math.isfinite(value)}


def _held_out_reasons(figures: GateFigures, config: GateConfig) -> list[str]:
    if not figures.held_out:
        return []
    groups = {"held-out pairs": list(figures.held_out)}
    by_user: dict[int, list[HeldOutPair]] = {}
    for pair in figures.held_out:
        by_user.setdefault(pair.user_id, []).append(pair)
    enough = {u: p for u, p in by_user.items() if len(p) >= config.held_out_min_pairs}
    if len(by_user) > 1 and enough:
        worst = max(enough, key=lambda user: _mean(_rises(enough[user])))
        groups[f"the worst-off user's ({worst}) held-out pairs"] = enough[worst]
        oldest = figures.oldest_user
        if oldest in enough and oldest != worst:
            groups[f"the oldest user's ({oldest}) held-out pairs"] = enough[oldest]
    reasons = []
    for name, pairs in groups.items():
        rise, allowed = _mean(_rises(pairs)), _allowed_rise(_rises(pairs), config)
        if not rise <= allowed:
            reasons.append(
                f"{name} are worse than before: loss {rise:+.2f} nats over {len(pairs)} pairs, "
                f"at most {allowed:+.2f} allowed"
            )
    for user, pairs in by_user.items():
        changes = [p.end_logp_change for p in pairs if p.end_logp_change is not None]
        if changes and not -_mean(changes) <= config.max_end_logp_drop_nats:
            reasons.append(
                f"user {user}: responses no longer end: the end of turn is {-_mean(changes):.2f} "
                f"nats less likely than before, at most {config.max_end_logp_drop_nats:.2f} allowed"
            )
    return reasons


def _reasons_of_texts(writer: str, figures: GateFigures, config: GateConfig) -> list[str]:
    base, before = figures.base_texts, figures.parent_texts.get(writer)
    if base is None or writer not in figures.texts:
        return []
    texts = figures.texts[writer]
    reasons = text_reasons(writer, texts, base, config)
    if reasons or before is None:
        return reasons
    return round_reasons(writer, texts, figures.more_texts[writer], before, config)


def end_changes(pairs: Sequence[RoundPair]) -> list[float]:
    """Of those whose chosen responses ended."""
    return [p.end_logp_change for p in pairs if p.end_logp_change is not None]


def _round_pair_reasons(figures: GateFigures, config: GateConfig) -> list[str]:
    if not figures.round_pairs:
        return []
    reasons = []
    for who, pairs in _groups(figures.round_pairs).items():
        of = f"over {len(pairs)} pairs of this round"
        rise = _mean([p.over_unlearnt_nats for p in pairs])
        if not rise <= config.max_own_over_unlearnt_nats:
            reasons.append(
                f"{who}: what was learnt suits worse than nothing, loss {rise:+.2f} nats {of}, "
                f"at most {config.max_own_over_unlearnt_nats:+.2f} allowed"
            )
        rise = _mean([p.over_parent_nats for p in pairs])
        if not rise <= config.max_own_over_parent_nats:
            reasons.append(
                f"{who}: what it learnt from suits worse than before, loss {rise:+.2f} nats {of}, "
                f"at most {config.max_own_over_parent_nats:+.2f} allowed"
            )
    drop = -_mean([p.chosen_logp_change for p in figures.round_pairs])
    if not drop <= config.max_chosen_logp_drop_nats:
        reasons.append(
            f"chosen responses have become improbable: {drop:.2f} nats per token below the "
            f"reference, at most {config.max_chosen_logp_drop_nats:.2f} allowed"
        )
    ends = end_changes(figures.round_pairs)
    if len(ends) >= FEW_PAIRS and not -_mean(ends) <= config.max_end_logp_drop_nats:
        reasons.append(
            f"responses no longer end: what was learnt makes the end of turn {-_mean(ends):.2f} "
            f"nats less likely, at most {config.max_end_logp_drop_nats:.2f} allowed"
        )
    return reasons


def _groups(pairs: Sequence[RoundPair]) -> dict[str, list[RoundPair]]:
    """The pairs of each user who has enough of them, and of those together who have not.

    Where even together these have too few, they are asked with everybody's.
    """
    by_user: dict[str, list[RoundPair]] = {}
    for pair in pairs:
        by_user.setdefault(f"user {pair.user_id}", []).append(pair)
    groups = {who: own for who, own in by_user.items() if len(own) >= FEW_PAIRS}
    others = [pair for own in by_user.values() if len(own) < FEW_PAIRS for pair in own]
    if groups and len(others) >= FEW_PAIRS:
        groups["the other users together"] = others
    elif others:
        groups["all users together"] = list(pairs)
    return groups


def _allowed_rise(rises: Sequence[float], config: GateConfig) -> float:
    mean = _mean(rises)
    squares = sum((r - mean) ** 2 for r in rises)
    spread = math.sqrt(squares / (len(rises) - 1)) if len(rises) > 1 else 0.0
    spread = max(spread, config.held_out_spread_nats)
    return config.held_out_loss_tolerance + 2 * spread / math.sqrt(len(rises))


def _rises(pairs: Sequence[HeldOutPair]) -> list[float]:
    return [p.candidate_nats - p.parent_nats for p in pairs]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
