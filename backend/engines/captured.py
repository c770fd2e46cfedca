"""A step as a captured CUDA graph; where that fails, the step as it comes, and the log says so.

Knows nothing of what a step does.
"""

from __future__ import annotations

import logging

import torch

from backend.engines.rooms import AsItComes, Capture, Graph, Step

_log = logging.getLogger(__name__)


class CudaCapture:
    """Captures steps on one CUDA device. The first failure is the last try."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._works = True

    def __call__(self, step: Step, beside: Graph | None) -> Graph:
        """Run `step` once, to warm up, and capture it.

        Args:
            beside: a graph that is never replayed at the same time; they share memory.
        """
        if not self._works:
            return AsItComes(step)
        try:
            return self._captured(step, beside)
        except RuntimeError as error:
            self._works = False
            _log.warning("decoding steps cannot be captured and run one by one: %s", error)
            return AsItComes(step)

    def _captured(self, step: Step, beside: Graph | None) -> Graph:
        graph = torch.cuda.CUDAGraph()
        pool = beside.pool() if isinstance(beside, torch.cuda.CUDAGraph) else None
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        # The outer context puts the stream back where a failing capture does not.
        with torch.cuda.stream(self._stream):
            step()
            with torch.cuda.graph(
                graph,
                pool=pool,
                stream=self._stream,
                # Another thread may be merging a version's weights, and ask for memory.
                capture_error_mode="thread_local",
            ):
                step()
        current.wait_stream(self._stream)
        return graph


def capture_on(device: torch.device) -> Capture | None:
    """How steps on this device are captured; None: they are not."""
    return CudaCapture(device) if device.type == "cuda" else None
