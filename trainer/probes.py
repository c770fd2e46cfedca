"""Probe texts: short samples under a vector, and how they look to the base model.

Pair accuracy says nothing about health: a model can order every pair rightly and write garbage. So
the gate lets it write. Knows nothing of pairs, losses and bounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from trainer.batching import Row
from trainer.decoding import DecodingBatch
from trainer.gate_texts import TextFigures
from trainer.language_model import LanguageModel
from trainer.prompting import EncodedPrompt, PromptFormat, embed
from trainer.sampling import RowSampler, draw
from trainer.scoring import autocast, response_logps
from trainer.types import Message

_TEMPERATURE = 0.8
_TOP_P = 0.95
_BASE_SEED = 0  # of the base model's texts, which all rounds are compared with
_JOIN_TOGETHER = 4  # a quarter of a batch at least, as joining copies what is there


@dataclass(frozen=True, slots=True)
class Probe:
    """One text to write: a prompt under a user vector (P, H), or under none."""

    messages: tuple[Message, ...]
    prefix: Tensor | None


@dataclass(frozen=True, slots=True)
class ProbeText:
    """One text written.

    Attributes:
        token_ids: without the token that ends a turn.
        text: decoded, stripped.
        nll_nats: the base model's summed negative log-likelihood of `token_ids`.
    """

    token_ids: tuple[int, ...]
    text: str
    nll_nats: float


def write_texts(
    base: LanguageModel,
    prompts: PromptFormat,
    probes: Sequence[Probe],
    *,
    new_tokens: int,
    seed: int,
    at_once: int | None = None,
) -> list[tuple[int, ...]]:
    """Sample one text per probe under the model as it stands.

    Rows leave the batch as they end, others take their places; equal probes that stand next to each
    other and join together are read once. Numbers that are not finite become bad text, not an
    error: the gate refuses it.

    Args:
        at_once: rows of a batch; all of them unless told.

    Returns:
        Token ids without the end of turn. The same seed and probes give the same texts.
    """
    texts: list[list[int]] = [[] for _ in probes]
    seeds = torch.randint(2**62, (len(probes),), generator=torch.Generator().manual_seed(seed))
    samplers = [
        RowSampler(temperature=_TEMPERATURE, top_p=_TOP_P, seed=own) for own in seeds.tolist()
    ]
    places = at_once or len(probes)
    batch = DecodingBatch(base.model)
    rows: list[int] = []
    waiting = list(range(len(probes)))
    with torch.no_grad(), autocast(base.model):
        while waiting or rows:
            free = places - len(rows)
            if waiting and free * _JOIN_TOGETHER >= places:
                joining, waiting = waiting[:free], waiting[free:]
                _join(batch, base, prompts, [probes[i] for i in joining])
                rows += joining
            tokens = draw(batch.logits.nan_to_num(), [samplers[row] for row in rows])
            stay = []
            for place, (row, token) in enumerate(zip(rows, tokens.tolist(), strict=True)):
                if token in base.stop_ids:
                    continue
                texts[row].append(token)
                if len(texts[row]) < new_tokens:
                    stay.append(place)
            rows = [rows[place] for place in stay]
            batch.keep(stay)
            if rows:
                batch.advance(tokens[stay])
    return [tuple(text) for text in texts]


def _join(
    batch: DecodingBatch, base: LanguageModel, prompts: PromptFormat, probes: Sequence[Probe]
) -> None:
    """Append a row for each probe."""
    groups = [list(equal) for _, equal in groupby(probes, key=_as_read)]
    batch.join(
        [_embedded(base, prompts, equal[0]) for equal in groups], [len(equal) for equal in groups]
    )


def _as_read(probe: Probe) -> tuple[object, ...]:
    """Equal for probes that the model cannot tell apart."""
    vector = None if probe.prefix is None else probe.prefix.cpu().numpy().tobytes()
    return probe.messages, vector


def _embedded(base: LanguageModel, prompts: PromptFormat, probe: Probe) -> Tensor:
    """Input embeddings (T, H) of a probe's prompt with its vector in place."""
    encoded = prompts.encode(probe.messages, with_prefix=probe.prefix is not None)
    return embed(
        base.model.get_input_embeddings(),
        torch.tensor([encoded.token_ids], device=base.device),
        [encoded.prefix_start],
        [probe.prefix],
    )[0]


def read_texts(
    base: LanguageModel,
    prompts: PromptFormat,
    messages: Sequence[tuple[Message, ...]],
    texts: Sequence[tuple[int, ...]],
    *,
    max_tokens: int,
) -> list[ProbeText]:
    """Score texts as π_ref does; the caller has switched the adapter off."""
    written = [i for i, ids in enumerate(texts) if ids]
    encoded: dict[str, EncodedPrompt] = {}  # one object per prompt, so that it is read once
    rows = []
    for i in written:
        spoken = str(messages[i])
        if spoken not in encoded:
            encoded[spoken] = prompts.encode(messages[i], with_prefix=False)
        rows.append(Row(encoded[spoken], texts[i]))
    with torch.no_grad():
        logps = response_logps(base.model, rows, [None] * len(rows), max_tokens=max_tokens)
    nll = dict(zip(written, (-logps).tolist(), strict=True))
    decode = base.tokenizer.decode
    return [
        ProbeText(ids, str(decode(list(ids), skip_special_tokens=True)).strip(), nll.get(i, 0.0))
        for i, ids in enumerate(texts)
    ]


def text_drops(
    base: LanguageModel,
    prompts: PromptFormat,
    probes: Sequence[Probe],
    texts: Sequence[ProbeText],
    *,
    max_tokens: int,
) -> list[float]:
    """By how much each of the base model's own texts is less likely under its probe, nats/token.

    The same texts are compared, so that it scatters far less than what is sampled anew. The mean
    is an estimate of the divergence KL(π_ref ‖ π) per token. Texts without tokens are left out,
    unless there are none but such.
    """
    written = [i for i, text in enumerate(texts) if text.token_ids]
    rows = [
        Row(
            prompts.encode(probes[i].messages, with_prefix=probes[i].prefix is not None),
            texts[i].token_ids,
        )
        for i in written
    ]
    with torch.no_grad():
        logps = response_logps(
            base.model, rows, [probes[i].prefix for i in written], max_tokens=max_tokens
        ).tolist()
    drops = [0.0] * len(texts)
    for i, logp in zip(written, logps, strict=True):
        drops[i] = (-texts[i].nll_nats - logp) / len(texts[i].token_ids)
    return drops


def text_figures(texts: Sequence[ProbeText]) -> TextFigures:
    """Figures of one writer's texts (at least one)."""
    tokens = sum(len(t.token_ids) for t in texts)
    # Over all texts together: the same answer to every prompt is a collapse too.
    seen = [t.token_ids[i : i + 4] for t in texts for i in range(len(t.token_ids) - 3)]
    repeated, grams = len(seen) - len(set(seen)), len(seen)
    return TextFigures(
        mean_tokens=tokens / len(texts),
        nll_nats=sum(t.nll_nats for t in texts) / tokens if tokens else float("nan"),
        repetition=repeated / grams if grams else 0.0,
        empty=sum(not t.text for t in texts),
        texts=len(texts),
    )


class BaseTexts:
    """Texts of the base model itself, kept while a process lives: they are the same in every round.

    Args:
        capacity: at most so many sets of texts are kept, oldest out first.
    """

    def __init__(self, capacity: int = 8) -> None:
        self._capacity = capacity
        self._kept: dict[tuple[object, ...], list[ProbeText]] = {}

    def get(
        self,
        base: LanguageModel,
        prompts: PromptFormat,
        messages: Sequence[tuple[Message, ...]],
        *,
        new_tokens: int,
        max_tokens: int,
    ) -> list[ProbeText]:
        """One text per prompt; the caller has switched the adapter off."""
        spoken = tuple(tuple((m["role"], m["content"]) for m in prompt) for prompt in messages)
        key = (base.identity, spoken, new_tokens)
        if key not in self._kept:
            probes = [Probe(prompt, None) for prompt in messages]
            ids = write_texts(base, prompts, probes, new_tokens=new_tokens, seed=_BASE_SEED)
            while len(self._kept) >= self._capacity:
                del self._kept[next(iter(self._kept))]
            self._kept[key] = read_texts(base, prompts, messages, ids, max_tokens=max_tokens)
        return self._kept[key]
