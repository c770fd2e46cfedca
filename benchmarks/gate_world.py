"""What the gate is calibrated on: texts, simulated users, sound versions. For `benchmarks.gate`.

Four simulated users of two opposed pairs choose among texts made with wishes of style; sound
versions are trained on their choices with the default recipe. Texts, and every version trained,
are kept in a folder, so that an interrupted run goes on where it stood.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from backend.persona_rules import RULES
from backend.shipped_prompts import shipped
from backend.styles import load_styles
from benchmarks.learning_world import as_prompt
from trainer.adapter import AttachedAdapter, attached, initial_adapter
from trainer.batching import PairRows, pair_rows, passes
from trainer.config import TrainConfig
from trainer.language_model import LanguageModel
from trainer.learning import Learner
from trainer.measuring import ParentState
from trainer.probes import Probe, read_texts, write_texts
from trainer.prompting import PromptFormat
from trainer.types import PreferencePair, ResponseTokens
from trainer.user_models import UserModel, initial_users, users_from_tensors

USERS = {1: "shorter", 2: "longer", 3: "warm", 4: "sober"}
OPPOSED = ((1, 2), (3, 4))
STYLES = ("brief", "full", "warm", "sober")
_ROWS = 20


@dataclass(frozen=True, slots=True)
class Weights:
    """One version's numbers: the adapter's, and what the user model keeps."""

    adapter: dict[str, Tensor]
    users: dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Sound:
    """A sound version and the round that made it.

    Attributes:
        name: which one.
        weights: after the round.
        pairs: what the round trained on.
    """

    name: str
    weights: Weights
    pairs: tuple[PreferencePair, ...]

    @property
    def took_part(self) -> list[int]:
        return sorted({pair.user_id for pair in self.pairs})


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much of everything: prompts to learn from, for the gate, for the yardstick.

    `rounds`: the parent's, each of everybody: before some rounds vectors have little to lose.
    `guess`: whether users decide at random between texts they like alike; else they do not choose.
    """

    learn: int = 8
    gate: int = 5
    yard: int = 8
    probes: int = 16
    yard_probes: int = 8
    tokens: int = 40
    rounds: int = 4
    guess: bool = False


class World:
    """Texts and choices over them, and the versions trained on those; deterministic but for `base`.

    Args:
        folder: keeps texts and versions between runs.
        say: called with a line before each step that takes long.
    """

    def __init__(
        self,
        base: LanguageModel,
        config: TrainConfig,
        sizes: Sizes,
        folder: Path,
        say: Callable[[str], None],
    ) -> None:
        self.base, self.config, self.sizes = base, config, sizes
        self._folder, self._say = folder, say
        self.format = PromptFormat(base.tokenizer, config.prefix_tokens)
        asked = _bank(sizes.learn + sizes.gate + sizes.yard + sizes.probes + sizes.yard_probes)
        taken = iter(asked)
        self._learn = list(itertools.islice(taken, sizes.learn))
        gate = list(itertools.islice(taken, sizes.gate))
        yard = list(itertools.islice(taken, sizes.yard))
        self.probes = list(itertools.islice(taken, sizes.probes))
        self.yard_probes = list(taken)
        self._texts = self._read_or_write_texts([*self._learn, *gate, *yard])
        self.held_out = self._pairs(gate, USERS, per_prompt=1, seed="gate")
        self.yard = self._pairs(yard, USERS, per_prompt=2, seed="yard")

    def rows(self, pairs: Sequence[PreferencePair]) -> list[PairRows]:
        return [pair_rows(pair, self.format) for pair in pairs]

    def references(self) -> dict[int, float]:
        """response_id → summed log π_ref of every text there is."""
        known = {}
        for responses in self._texts.values():
            for response in responses:
                assert response.reference_logp_nats is not None
                known[response.response_id] = response.reference_logp_nats
        return known

    @contextmanager
    def attach(self, weights: Weights) -> Iterator[tuple[AttachedAdapter, UserModel]]:
        """The model as `weights` make it."""
        with attached(self.base.model, self.config, weights.adapter) as adapter:
            kind = self.config.user_model
            yield adapter, users_from_tensors(kind, weights.users, (), self.base.device)

    def state(self, weights: Weights) -> ParentState:
        """The same, to be compared with."""
        kind = self.config.user_model
        users = users_from_tensors(kind, weights.users, (), self.base.device)
        return ParentState(weights.adapter, users, weights.users)

    def parent(self) -> Sound:
        """Everybody's first rounds, from the initial state; with the pairs of the last one."""
        weights = Weights(
            initial_adapter(self.base.model, self.config),
            initial_users(self.base.model, self.base.tokenizer, self.config).tensors(),
        )
        for turn in range(self.sizes.rounds):
            pairs = self._pairs(self._learn, USERS, per_prompt=1, seed=f"parent {turn}")
            config = replace(self.config, seed=100 + turn)
            parent = self._trained(f"parent-{turn}", weights, pairs, config)
            weights = parent.weights
        return parent

    def child(self, number: int) -> Sound:
        """A sound round on from the parent: others take part, other pairs, rates and seeds."""
        took_part = ((1, 2), (3, 4), (1, 2, 3), (2, 3, 4), (1, 4), (2, 3))[number % 6]
        pace = (1.0, 0.5, 1.5)[number % 3]
        config = replace(
            self.config,
            seed=number,
            learning_rate_adapter=pace * self.config.learning_rate_adapter,
            learning_rate_vector=pace * self.config.learning_rate_vector,
        )
        some = {user: USERS[user] for user in took_part}
        pairs = self._pairs(self._learn, some, per_prompt=1, seed=f"child {number}")
        return self._trained(f"child-{number}", self.parent().weights, pairs, config)

    def harsh(self, sound: Sound) -> Weights:
        """The same round by the published objective (no DPOP, no NLL) at many times the rates."""
        config = replace(
            self.config,
            epochs=3,
            dpop_lambda=0.0,
            nll_weight=0.0,
            learning_rate_adapter=4 * self.config.learning_rate_adapter,
            learning_rate_vector=10 * self.config.learning_rate_vector,
        )
        start = self.parent().weights
        return self._trained(f"harsh-{sound.name}", start, sound.pairs, config).weights

    def misread(self, sound: Sound) -> Weights:
        """Users who took part learn their choices the wrong way round; nothing shared moves."""
        config = replace(
            self.config,
            own_epochs=self.config.epochs,
            learning_rate_vector=5 * self.config.learning_rate_vector,
        )
        pairs = _reversed(sound.pairs)
        return self._trained(f"misread-{sound.name}", sound.weights, pairs, config).weights

    def forgetting(self, sound: Sound) -> Weights:
        """The adapter unlearns those who did not take part; every vector stays what it was."""
        config = replace(self.config, learning_rate_adapter=4 * self.config.learning_rate_adapter)
        absent = {user: rule for user, rule in USERS.items() if user not in sound.took_part}
        pairs = self._pairs(self._learn, absent, per_prompt=1, seed=f"forgetting {sound.name}")
        name = f"forgetting-{sound.name}"
        trained = self._trained(name, sound.weights, _reversed(pairs), config)
        return Weights(trained.weights.adapter, sound.weights.users)

    def _trained(
        self, name: str, start: Weights, pairs: tuple[PreferencePair, ...], config: TrainConfig
    ) -> Sound:
        path = self._folder / name
        if not path.exists():
            self._say(f"training {name} on {len(pairs)} pairs, {config.epochs} epochs")
            weights = self._train(start, pairs, config)
            partial = path.with_suffix(".partial")
            partial.mkdir(parents=True, exist_ok=True)
            safetensors.torch.save_file(weights.users, partial / "users.safetensors")
            safetensors.torch.save_file(weights.adapter, partial / "adapter.safetensors")
            partial.rename(path)
        adapter = safetensors.torch.load_file(path / "adapter.safetensors")
        users = safetensors.torch.load_file(path / "users.safetensors")
        return Sound(name, Weights(adapter, users), pairs)

    def _train(
        self, start: Weights, pairs: Sequence[PreferencePair], config: TrainConfig
    ) -> Weights:
        learning = {pair.user_id for pair in pairs}
        users = users_from_tensors(config.user_model, start.users, learning, self.base.device)
        rows = self.rows(pairs)
        with attached(self.base.model, config, start.adapter) as adapter:
            learner = Learner(
                self.base.model,
                adapter.parameters,
                users=users,
                references=self.references(),
                config=config,
                state={},
            )
            for _, batch, shared in passes(len(rows), config, seed=str(config.seed)):
                learner.step([rows[i] for i in batch], shared=shared)
            return Weights(adapter.tensors(), users.tensors())

    def _pairs(
        self, prompts: Sequence[str], users: Mapping[int, str], *, per_prompt: int, seed: str
    ) -> tuple[PreferencePair, ...]:
        """Each user's choices between two texts to one prompt that suit them differently."""
        rng = random.Random(seed)
        pairs: list[PreferencePair] = []
        for prompt, (user, rule) in itertools.product(prompts, users.items()):
            twos = list(itertools.combinations(self._texts[prompt], 2))
            rng.shuffle(twos)
            found = 0
            for one, other in twos:
                liking = RULES[rule].prefers(self._words(one), self._words(other))
                if self.sizes.guess:
                    liking = liking or rng.choice((1, -1))
                if liking and found < per_prompt:
                    chosen, rejected = (one, other) if liking > 0 else (other, one)
                    asked = as_prompt(prompt)
                    pairs.append(PreferencePair(len(pairs), user, asked, chosen, rejected))
                    found += 1
        return tuple(pairs)

    def _words(self, response: ResponseTokens) -> str:
        ids = list(response.token_ids)
        return str(self.base.tokenizer.decode(ids, skip_special_tokens=True)).strip()

    def _read_or_write_texts(self, prompts: Sequence[str]) -> dict[str, list[ResponseTokens]]:
        path = self._folder / "texts.json"
        if not path.exists():
            self._say(f"writing {len(prompts) * len(STYLES)} texts with wishes of style")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(self._write_texts(prompts)))
        stored = json.loads(path.read_text())
        ids = itertools.count()
        return {
            prompt: [ResponseTokens(next(ids), tuple(t), logp) for t, logp in stored[prompt]]
            for prompt in prompts
        }

    def _write_texts(self, prompts: Sequence[str]) -> dict[str, list[tuple[list[int], float]]]:
        styles = {style.name: style for style in load_styles()}
        asked = [(prompt, styles[name]) for name in STYLES for prompt in prompts]
        texts: dict[str, list[tuple[list[int], float]]] = {prompt: [] for prompt in prompts}
        for start in range(0, len(asked), _ROWS):
            some = asked[start : start + _ROWS]
            probes = [Probe(as_prompt(prompt, style.wish), None) for prompt, style in some]
            written = write_texts(
                self.base, self.format, probes, new_tokens=self.sizes.tokens, seed=start
            )
            # Whatever is shorter than the limit has ended, and learns to.
            stop = self.base.stop_ids[0]
            ids = [(*t, stop) if len(t) < self.sizes.tokens else t for t in written]
            read = read_texts(
                self.base,
                self.format,
                [as_prompt(prompt) for prompt, _ in some],
                ids,
                max_tokens=self.config.forward_tokens,
            )
            for (prompt, _), text in zip(some, read, strict=True):
                texts[prompt].append((list(text.token_ids), -text.nll_nats))
        return texts


def _bank(count: int) -> list[str]:
    """`count` prompts of the bank, always the same ones."""
    return random.Random("gate").sample([prompt["text"] for prompt in shipped()], count)


def _reversed(pairs: Sequence[PreferencePair]) -> tuple[PreferencePair, ...]:
    return tuple(replace(pair, chosen=pair.rejected, rejected=pair.chosen) for pair in pairs)


def clone(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in tensors.items()}


def between(start: Weights, end: Weights, share: float) -> Weights:
    """`start` + `share` · (`end` − `start`), for versions that know the same users."""

    def mixed(old: Mapping[str, Tensor], new: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {
            name: torch.lerp(old[name], new[name], share)
            if new[name].is_floating_point()
            else new[name].clone()
            for name in new
        }

    return Weights(mixed(start.adapter, end.adapter), mixed(start.users, end.users))
