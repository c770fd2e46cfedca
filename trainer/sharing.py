"""One copy of the base weights for two processes: handles made in one, attached in the other.

On CUDA the tensors stay the serving process's and the trainer maps the same memory. This is what
torch.multiprocessing does with tensors of either kind, so on a CPU the same code goes through
torch's shared memory (where two processes that map one file share it without any of this).

Neither side may write into what is shared. Knows nothing of processes, of pipes and of who decides.
"""

from __future__ import annotations

import base64
import copy
import logging
import pickle
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import torch
import torch.multiprocessing  # teaches ForkingPickler tensors
from torch import nn
from transformers import PreTrainedModel

from trainer.language_model import LanguageModel, load_tokenizer, resolve_device, set_up

_log = logging.getLogger(__name__)


class CannotAttach(Exception):
    """The handles lead to no model here."""


class SharedModel:
    """A model as another process may attach it, whatever its owner does with the original.

    It holds the tensors, not a copy of them: they stay while it is there.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        """Take the tensors `model` has now; its parameters may be given others afterwards.

        On a CPU they move into shared memory, so nobody may be reading them. On CUDA they stay.
        """
        aliases: dict[int, object] = {
            id(parameter): nn.Parameter(parameter.data, requires_grad=False)
            for parameter in model.parameters()
        }
        aliases |= {id(buffer): buffer.data for buffer in model.buffers()}
        self._model = copy.deepcopy(model, aliases)
        # Left to `handles` they would move under an engine that is reading them: a crash.
        self._model.share_memory()

    def handles(self) -> str | None:
        """One line of text for one process; None, and the log says why, where there can be none.

        CUDA counts who has opened a handle, so each process needs handles of its own.
        """
        try:
            pickled = ForkingPickler.dumps(self._model)
        except (RuntimeError, OSError, pickle.PicklingError, TypeError, AttributeError) as error:
            _log.warning("the base weights cannot be shared: %s", error)
            return None
        return base64.b64encode(pickled).decode()


def attach(path: Path, identity: str, handles: str) -> LanguageModel:
    """The model behind `handles`, with the tokenizer in `path`; no weight is read or copied.

    `handles` are code as well as data: take them from the process that started this one only.

    Raises:
        CannotAttach: the tensors cannot be opened here. OSError: there is no tokenizer.
    """
    try:
        model = pickle.loads(base64.b64decode(handles))  # noqa: S301 - see above
    except (
        RuntimeError,
        OSError,
        ValueError,
        EOFError,
        ImportError,
        AttributeError,
        pickle.UnpicklingError,
    ) as error:
        raise CannotAttach(str(error)) from error
    set_up(model.device)
    return LanguageModel(model, load_tokenizer(path), identity)


def on_one_gpu(serving: torch.device, training: str) -> bool:
    """Whether a trainer told to use the device `training` trains on the GPU that serves."""
    trains = resolve_device(training)
    # Without a number it is the first one: no process of ours goes over to another.
    return serving.type == trains.type == "cuda" and (serving.index or 0) == (trains.index or 0)
