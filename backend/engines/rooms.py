"""Room of fixed size and place for keys and values, and the step that is run in it.

A step reads one token in each of the first R slots of a room, and looks back over the first W
places; R and W are powers of two, so that there are few kinds of step, and nothing a step touches
ever moves. So it can be captured once and replayed: on a GPU the launches of a step's hundreds of
small kernels cost more than the kernels do.

How a step is captured is the caller's to say (`backend/engines/captured.py` on CUDA). Knows nothing
of rows, prompts, versions and requests.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor
from transformers import Cache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

_LEAST_PLACES = 128
_MOST_GRAPHS = 24  # of one room

Step = Callable[[], None]


class Graph(Protocol):
    """A captured step."""

    def replay(self) -> None:
        """Do again what was captured, with what the same places hold now."""


Capture = Callable[[Step, Graph | None], Graph]  # a step, and another graph of its room if any


def bucket(count: int, least: int = 1) -> int:
    """The smallest power of two that is at least `count` and `least`."""
    return max(least, 1 << (count - 1).bit_length())


class _SlotLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """One layer of the first slots and places of a room; a token is written to its own place."""

    def __init__(self, keys: Tensor, values: Tensor, places: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.is_initialized = True
        self.keys, self.values = keys, values
        self._places = places

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Write the states (R, heads, 1, D) of one token a slot; all there is room for."""
        assert self.keys is not None
        assert self.values is not None
        index = self._places.view(-1, 1, 1, 1)
        self.keys.scatter_(2, index.expand_as(key_states), key_states)
        self.values.scatter_(2, index.expand_as(value_states), value_states)
        return self.keys, self.values


class Room:
    """Keys and values (2 · layers, slots, heads, places, D) of one model, and what a step reads.

    Attributes:
        logits: (slots, V) fp32, where steps leave them.
    """

    logits: Tensor

    def __init__(self, model: PreTrainedModel, capture: Capture) -> None:
        self._model = model
        self._capture = capture
        self._states: Tensor | None = None
        self._told = torch.zeros(0, 2, dtype=torch.long)  # (slots, 2): token and place
        self._graphs: OrderedDict[tuple[int, int, object], Graph] = OrderedDict()

    def write(self, slot: int, states: Tensor, slots: int) -> None:
        """Put the states (2 · layers, heads, T, D) of a prompt into a slot, from its first place.

        Args:
            slots: that will be used, this one among them.
        """
        room = self._with_space(slots, states.shape[-2] + 1, states)
        room[:, slot, :, : states.shape[-2]] = states

    def step(self, read: Mapping[int, tuple[int, int]], weights: object) -> None:
        """Read tokens; what stands in `logits` for their slots is then of the next ones.

        Args:
            read: slot → (token id, its place).
            weights: equal for weights that stand in the same places of memory.
        """
        assert self._states is not None
        rows = bucket(max(read) + 1)
        width = bucket(max(place for _, place in read.values()) + 1, _LEAST_PLACES)
        self._with_space(rows, width, self._states)
        # A slot nobody uses reads token 0 at place 0, where the next prompt will be written over.
        idle = (0, 0)
        told = torch.tensor([read.get(slot, idle) for slot in range(rows)])
        self._told[:rows].copy_(told, non_blocking=True)
        self._graph(rows, width, weights).replay()

    def _with_space(self, slots: int, width: int, like: Tensor) -> Tensor:
        """The room with so many slots and places at least; what it holds stays, graphs do not."""
        room = self._states
        if room is not None and room.shape[1] >= slots and room.shape[3] >= width:
            return room
        parts, heads, size = like.shape[0], like.shape[-3], like.shape[-1]
        slots, width = bucket(slots), bucket(width, 4 * _LEAST_PLACES)
        if room is not None:
            slots, width = max(slots, room.shape[1]), max(width, room.shape[3])
        self._graphs.clear()  # before the memory is asked for: they hold some
        # Zeros, since what is masked is multiplied by zero, and a number that is none would stay.
        wider = like.new_zeros(parts, slots, heads, width, size)
        if room is not None:
            wider[:, : room.shape[1], :, : room.shape[3]] = room
        self._states = wider
        self._told = torch.zeros(slots, 2, dtype=torch.long, device=like.device)
        vocabulary = self._model.config.get_text_config().vocab_size
        self.logits = torch.zeros(slots, vocabulary, device=like.device)
        return wider

    def _graph(self, rows: int, width: int, weights: object) -> Graph:
        key = (rows, width, weights)
        graph = self._graphs.get(key)
        if graph is None:
            beside = next(iter(self._graphs.values()), None)
            graph = self._capture(lambda: self._run(rows, width), beside)
            self._graphs[key] = graph
            if len(self._graphs) > _MOST_GRAPHS:
                self._graphs.popitem(last=False)
        self._graphs.move_to_end(key)
        return graph

    def _run(self, rows: int, width: int) -> None:
        """The step itself. The same places of memory every time, and no look at what they hold."""
        assert self._states is not None
        states = self._states[:, :rows, :, :width]
        ids, places = self._told[:rows].unbind(1)
        cache = Cache(layers=[*_layers(states, places)])
        hidden = torch.arange(width, device=places.device) > places[:, None]
        dtype = states.dtype
        mask = torch.zeros(rows, width, dtype=dtype, device=places.device)
        mask = mask.masked_fill(hidden, torch.finfo(dtype).min)
        made = self._model(
            input_ids=ids[:, None],
            attention_mask=mask[:, None, None],
            position_ids=places[:, None],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self.logits[:rows].copy_(made.logits[:, -1])


def _layers(states: Tensor, places: Tensor) -> list[_SlotLayer]:
    pairs = zip(states[0::2], states[1::2], strict=True)
    return [_SlotLayer(keys, values, places) for keys, values in pairs]
