"""One `Engine.generate` call under way: the engine's thread writes, any number of threads read.

Every engine hands this out. Knows nothing of models, tokens or versions.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

from backend.engines.base import Generated


class RunningGeneration:
    """Implements the `Generation` protocol, with `show`, `finish` and `fail` for its engine."""

    def __init__(self, count: int) -> None:
        self._changed = threading.Condition()
        self._texts = [""] * count
        self._results: tuple[Generated, ...] | None = None
        self._error: Exception | None = None
        self._cancelled = threading.Event()

    def stream(self) -> Iterator[tuple[str, ...]]:
        """The texts so far, each time one has grown; ends with the last state, or raises."""
        shown: tuple[str, ...] | None = None
        over = False
        while not over:
            texts, over = self._wait_for_news(shown or ("",) * len(self._texts))
            if texts != shown:
                yield texts
                shown = texts
        self.result()

    def result(self, timeout_s: float | None = None) -> tuple[Generated, ...]:
        """Wait for the finished responses, in the order of the requests."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.over, timeout_s):
                raise TimeoutError(f"not finished within {timeout_s} s")
            if self._error is not None:
                raise self._error
            assert self._results is not None
            return self._results

    def cancel(self) -> None:
        """Stop after the current token; `result` then returns what there is."""
        self._cancelled.set()

    @property
    def cancelled(self) -> bool:
        return self._cancelled.is_set()

    @property
    def over(self) -> bool:
        """Finished or failed."""
        return self._results is not None or self._error is not None

    def show(self, texts: Sequence[str]) -> None:
        """The texts as they stand now, one per request."""
        with self._changed:
            if not self.over and self._texts != list(texts):
                self._texts = list(texts)
                self._changed.notify_all()

    def finish(self, results: Sequence[Generated]) -> None:
        """Every response is complete."""
        with self._changed:
            if not self.over:
                self._texts = [made.text for made in results]
                self._results = tuple(results)
                self._changed.notify_all()

    def fail(self, error: Exception) -> None:
        """No more will come; readers get `error`. Without effect once over."""
        with self._changed:
            if not self.over:
                self._error = error
                self._changed.notify_all()

    def _wait_for_news(self, known: tuple[str, ...]) -> tuple[tuple[str, ...], bool]:
        with self._changed:
            self._changed.wait_for(lambda: self.over or tuple(self._texts) != known)
            return tuple(self._texts), self.over
