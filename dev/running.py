"""Attune as a process of its own, the way people run it: `python app.py`."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).parent.parent
READY_WITHIN_S = 240.0


def environment(**settings: str) -> dict[str, str]:
    """This process's environment with only the given `ATTUNE_…` settings."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("ATTUNE_")}
    return kept | {f"ATTUNE_{name.upper()}": value for name, value in settings.items()}


def _usual(data: Path) -> dict[str, str]:
    """A folder and a port of its own; who signs in is not shown around first."""
    return {"data_dir": str(data), "port": "0", "introduction": "false"}


class RunningApp:
    """A started app; `with RunningApp(folder, engine="echo") as app` ends it at the end.

    Attributes:
        address: where it serves, known as soon as it listens.
        invite: the first admin's link, once ready, if there was one.
    """

    def __init__(self, data: Path, **settings: str) -> None:
        self.data = data
        self.lines: list[str] = []
        self.address = ""
        self.invite: str | None = None
        self._output: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.process = subprocess.Popen(
            [sys.executable, "app.py"],
            cwd=ROOT,
            env=environment(**_usual(data) | settings),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.address = self._until(r"starting at (\S+)")

    def wait_ready(self) -> Self:
        """Wait until the model is live."""
        self._until(r"ready at (\S+)")
        return self

    def wait_invite(self) -> str:
        """The one-time link of the first admin."""
        return self._until(r"first admin, once, at (\S+)")

    def wait_line(self, pattern: str) -> None:
        """Wait for a line of its output."""
        self._until(f"({pattern})")

    def kill(self) -> None:
        """kill -9: no handler runs, nothing is flushed."""
        self.process.send_signal(signal.SIGKILL)
        self._end()

    def stop(self) -> int:
        """Ask it to stop and return its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _end(self) -> int:
        status = self.process.wait(60)
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._output.put(line)
        self._output.put(None)

    def _until(self, pattern: str) -> str:
        """The first group of the first line that matches; fails with all output otherwise."""
        for line in self.lines:
            if match := re.search(pattern, line):
                return match[1]
        while True:
            try:
                newest = self._output.get(timeout=READY_WITHIN_S)
            except queue.Empty:
                raise AssertionError(f"no {pattern!r} in:\n{''.join(self.lines)}") from None
            if newest is None:
                raise AssertionError(f"it ended before {pattern!r}:\n{''.join(self.lines)}")
            self.lines.append(newest)
            if match := re.search(pattern, newest):
                return match[1]
