"""Rows decoding in rooms of fixed size: the same as `DecodingBatch`, by steps that can be captured.

A row keeps its slot from joining to leaving, and its tokens stand at their own places in it, so
nothing is padded or cut while rows come and go. They are always in a room of the size they need:
one that is too large or too small they leave, with its steps, to others. Knows nothing of requests,
sampling and CUDA; what a step is, and that it may be captured, is the room's
(`backend/engines/rooms.py`).
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from itertools import count, islice
from math import prod

import torch
from torch import Tensor
from transformers import PreTrainedModel

from backend.engines.rooms import AsItComes, Capture, Graph, Room, Size, Step, size_for
from trainer.decoding import Batch, DecodingBatch, read_prompts

# What makes attention look at other places than all those before.
_WINDOWS = ("sliding_window", "attention_chunk_size")
_TRIAL_TOKENS = (5, 3)
# Of the logits' norm: rounding in bfloat16 comes to a hundredth, anything wrong to about one.
_ROUNDING = {torch.float32: 1e-3, torch.bfloat16: 0.05, torch.float16: 0.02}
# Rooms asked for: among so many every size turns up that is in use, drafts among many pairs too.
_LATELY = 64

_log = logging.getLogger(__name__)


class Rooms:
    """The rooms of one model: taken by batches, given back with their captured steps.

    Those that nobody uses are kept, together at most twice as large as the largest asked for
    lately: what was needed once is not held for ever. All rows of all batches are read by one
    thread, one batch after the other.
    """

    def __init__(self, model: PreTrainedModel, capture: Capture) -> None:
        self.model = model
        self._capture = capture
        self._free: list[Room] = []  # given back last stands last
        self._asked: deque[int] = deque(maxlen=_LATELY)  # slots times places

    def take(self, size: Size, like: Tensor) -> Room:
        """A room of this size that nobody uses.

        Args:
            like: any states (2 · layers, …, heads, T, D) of the model.
        """
        self._asked.append(prod(size))
        for room in reversed(self._free):
            if room.size == size:
                self._free.remove(room)
                return room
        return Room(self.model, self._capture, size, like)

    def give_back(self, room: Room) -> None:
        """The room may be used by another batch, or is let go."""
        self._free.append(room)
        while sum(prod(free.size) for free in self._free) > 2 * max(self._asked):
            del self._free[0]


class StaticBatch:
    """Implements `Batch`."""

    def __init__(self, rooms: Rooms, weights: object) -> None:
        """Begin without rows.

        Args:
            weights: equal for weights that stand in the same places of memory; those in place
                whenever a method is called are meant.
        """
        self._rooms = rooms
        self._weights = weights
        self._room: Room | None = None
        self._slots: list[int] = []
        self._lengths: list[int] = []
        self._index = torch.zeros(0, dtype=torch.long, device=rooms.model.device)
        vocabulary = rooms.model.config.get_text_config().vocab_size
        self.logits = torch.zeros(0, vocabulary, device=rooms.model.device)

    def __len__(self) -> int:
        return len(self._slots)

    def join(self, prompts: Sequence[Tensor], copies: Sequence[int]) -> None:
        """See `Batch`."""
        cache, _, logits = read_prompts(self._rooms.model, prompts)
        states = cache.stacked()
        width = states.shape[-2]
        rows = [row for row, copy in enumerate(copies) for _ in range(copy)]
        used = set(self._slots)
        slots = list(islice((slot for slot in count() if slot not in used), len(rows)))
        lengths = [len(prompts[row]) for row in rows]
        room = self._fitting([*self._slots, *slots], [*self._lengths, *lengths], states)
        for row, slot in zip(rows, slots, strict=True):
            room.write(slot, states[:, row, :, width - len(prompts[row]) :])
        self._slots += slots
        self._lengths += lengths
        self._note_slots()
        self.logits = torch.cat([self.logits, logits[self._on_device(rows)]])

    def advance(self, token_ids: Tensor) -> None:
        """See `Batch`."""
        assert self._room is not None
        room = self._fitting(self._slots, self._lengths, self._room.states)
        told = zip(token_ids.tolist(), self._lengths, strict=True)
        room.step(dict(zip(self._slots, told, strict=True)), self._weights)
        self._lengths = [length + 1 for length in self._lengths]
        self.logits = room.logits.index_select(0, self._index)

    def keep(self, rows: Sequence[int]) -> None:
        """See `Batch`."""
        if len(rows) == len(self):
            return
        self.logits = self.logits.index_select(0, self._on_device(rows))
        self._slots = [self._slots[row] for row in rows]
        self._lengths = [self._lengths[row] for row in rows]
        self._note_slots()
        if self._room is not None and not rows:
            self._rooms.give_back(self._room)
            self._room = None

    def _fitting(self, slots: Sequence[int], lengths: Sequence[int], like: Tensor) -> Room:
        """The room that rows in these slots and a token more of each need; they are moved there.

        Args:
            like: see `Rooms.take`.
        """
        size = size_for(max(slots) + 1, max(lengths) + 1)
        if self._room is None or self._room.size != size:
            room = self._rooms.take(size, like)
            if self._room is not None:
                room.take_over(self._room)
                self._rooms.give_back(self._room)
            self._room = room
        return self._room

    def _note_slots(self) -> None:
        self._index = self._on_device(self._slots)

    def _on_device(self, numbers: Sequence[int]) -> Tensor:
        index = torch.tensor(numbers, dtype=torch.long)
        return index.to(self._rooms.model.device, non_blocking=True)


def batches(model: PreTrainedModel, capture: Capture | None) -> Callable[[frozenset[str]], Batch]:
    """What makes the batches of a model: by the names of the merged weights they decode under.

    Without a way to capture steps, and for a model whose steps in a room are not what its steps are
    elsewhere (the log says so), batches are plain ones.
    """
    if capture is None:
        return lambda _: DecodingBatch(model)
    why = why_not_static(model)
    if why is not None:
        _log.warning("steps of %s are not captured: %s", type(model).__name__, why)
        return lambda _: DecodingBatch(model)
    rooms = Rooms(model, capture)
    return lambda names: StaticBatch(rooms, names)


@torch.inference_mode()
def why_not_static(model: PreTrainedModel) -> str | None:
    """What keeps this model's rows from decoding in rooms; None: nothing does.

    Two rows are decoded in either way, and their logits compared.
    """
    config = model.config.get_text_config()
    windows = [name for name in _WINDOWS if getattr(config, name, None) is not None]
    if windows:
        return f"its attention looks back over a part only ({windows[0]})"
    try:
        static = _trial(model, StaticBatch(Rooms(model, _as_it_comes), frozenset()))
    except (RuntimeError, ValueError, TypeError, AttributeError, KeyError) as error:
        return f"it does not run with a cache of fixed size ({error})"
    plain = _trial(model, DecodingBatch(model))
    away = float((static - plain).norm() / plain.norm())
    return None if away <= _ROUNDING.get(model.dtype, 1e-3) else f"logits are off by {away:.2g}"


def _as_it_comes(step: Step, beside: object) -> Graph:
    return AsItComes(step)


def _trial(model: PreTrainedModel, batch: Batch) -> Tensor:
    """Logits of two rows of unlike length after two tokens."""
    embedding = model.get_input_embeddings()
    first, second = (
        embedding(torch.arange(1, length + 1, device=model.device)) for length in _TRIAL_TOKENS
    )
    batch.join([first], [1])
    batch.advance(torch.tensor([1]))
    batch.join([second], [1])
    batch.advance(torch.tensor([2, 3]))
    return batch.logits
