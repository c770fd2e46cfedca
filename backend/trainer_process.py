"""The trainer as a child process: one at a time, low priority, restarted when it dies.

Requests and reports are JSON lines (`trainer/worker.py` is the other end). The child ends when its
standard input closes, so it never outlives this process, however this one ends.
Knows nothing of the database.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

from trainer.types import Phase, Progress, RoundFailed, RoundRequest, RoundResult

_log = logging.getLogger(__name__)
_ROOT = Path(__file__).parent.parent
# OpenMP threads that wait by spinning take the cores from the engine.
_QUIET_THREADS = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}


class TrainerProcess:
    """Starts the child on demand and runs one round at a time in it."""

    def __init__(
        self, arguments: Sequence[str], handles: Callable[[], str | None] | None = None
    ) -> None:
        """Start nothing yet.

        Args:
            arguments: of the child's command line.
            handles: asked for each child, what it attaches the base weights by; None: it is asked
                to load its own.
        """
        shared = [] if handles is None else ["--shared"]
        self._command = [sys.executable, "-m", "trainer", *arguments, *shared]
        self._handles = handles
        self._to_be_told = False
        self._child: subprocess.Popen[str] | None = None
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._starting = threading.Lock()
        self._closed = False

    @property
    def pid(self) -> int | None:
        """The child's process id while it runs."""
        child = self._child
        return child.pid if child is not None and child.poll() is None else None

    def start(self) -> None:
        """Start the child if it is not running; returns before it has loaded the model."""
        with self._starting:
            if self._closed or self.pid is not None:
                return
            if self._child is not None:
                _close_input(self._child)
            lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
            child = subprocess.Popen(
                self._command,
                cwd=_ROOT,
                env={**os.environ, **_QUIET_THREADS},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                # Ctrl-C is for the app; it then ends the trainer itself. Not a session of its own:
                # Linux may schedule sessions as groups of equal weight, niceness counts in one.
                process_group=0,
            )
            assert child.stdout is not None
            reader = threading.Thread(
                target=_read, args=(child.stdout, lines), name="trainer-output", daemon=True
            )
            reader.start()
            self._child, self._lines = child, lines
            self._to_be_told = True

    def run(
        self, request: RoundRequest, on_progress: Callable[[Progress], None], timeout_s: float
    ) -> RoundResult:
        """Run one round in the child; blocks until it is finished.

        Whatever is raised, also by `on_progress`: no child goes on with the round.

        Raises:
            RoundFailed: the round failed, the child died, or the time is over.
        """
        self.start()
        try:
            self._send(request)
            end = self._end_of(request.round_id, on_progress, timeout_s)
        except BaseException:
            self._kill()
            raise
        if end["event"] == "failed":
            raise RoundFailed(end["reason"])
        return RoundResult.from_json(end["result"])

    def close(self) -> None:
        """End the child, also in the middle of a round."""
        with self._starting:
            self._closed = True
            self._kill()

    def _end_of(
        self, round_id: int, on_progress: Callable[[Progress], None], timeout_s: float
    ) -> dict[str, Any]:
        """The event that ends the round; reports progress, skips what is of other rounds.

        Raises:
            RoundFailed: the child died, or the time is over.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise RoundFailed(f"the round took longer than {timeout_s:.0f} s") from None
            if line is None:
                raise RoundFailed(f"the trainer process ended ({self._exit_status()})")
            event: dict[str, Any] = json.loads(line)
            if event.get("round_id") != round_id:
                continue
            if event["event"] in ("done", "failed"):
                return event
            on_progress(_progress(event))

    def _send(self, request: RoundRequest) -> None:
        child = self._child
        if child is None or child.stdin is None:
            raise RoundFailed("the trainer process is closed")
        try:
            # Not at its start: it reads seconds later, and the pipe holds less than a line.
            if self._handles is not None and self._to_be_told:
                child.stdin.write(json.dumps({"weights": self._handles()}) + "\n")
                self._to_be_told = False
            child.stdin.write(json.dumps(request.to_json()) + "\n")
            child.stdin.flush()
        except (BrokenPipeError, ValueError) as error:
            raise RoundFailed(f"the trainer process ended ({self._exit_status()})") from error

    def _kill(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            _close_input(self._child)

    def _exit_status(self) -> str:
        if self._child is None:
            return "never started"
        status = self._child.wait()
        return f"signal {-status}" if status < 0 else f"exit status {status}"


def _close_input(child: subprocess.Popen[str]) -> None:
    """Close a dead child's input; what was still buffered for it has nobody to read it."""
    assert child.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        child.stdin.close()


def _read(stdout: IO[str], lines: queue.SimpleQueue[str | None]) -> None:
    for line in stdout:
        lines.put(line)
    lines.put(None)
    stdout.close()


def _progress(event: dict[str, Any]) -> Progress:
    return Progress(
        phase=Phase(event["phase"]),
        step=event["step"],
        steps=event["steps"],
        figures=event["figures"],
    )
