"""The trainer as a process: round requests in on stdin, events out on stdout, one JSON per line.

    in   {"weights": text of `trainer.sharing` or null}    first, and only with --shared
         RoundRequest.to_json()
    out  {"event": "ready"}
         {"event": "progress", "round_id", "phase", "step", "steps", "figures"}
         {"event": "done", "round_id", "result": RoundResult.to_json()}
         {"event": "failed", "round_id", "reason": one sentence}

When stdin ends, at any moment, the process ends: it never outlives its parent. A failed round
leaves it ready for the next one. Knows nothing of databases and schedules.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import sys
import threading
from dataclasses import asdict
from typing import Any, NoReturn, TextIO

import torch

from trainer.language_model import LanguageModel
from trainer.probes import BaseTexts
from trainer.round import run_round
from trainer.types import Progress, RoundFailed, RoundRequest

_log = logging.getLogger(__name__)


def watch_stdin() -> queue.SimpleQueue[str]:
    """Lines of stdin, as they come; its end ends the process, also in the middle of a step."""
    requests: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            if line.strip():
                requests.put(line)
        os._exit(0)

    threading.Thread(target=read, name="stdin", daemon=True).start()
    return requests


def serve(base: LanguageModel, requests: queue.SimpleQueue[str], events: TextIO) -> NoReturn:
    """Run the rounds asked for, one after the other, and write what happens to `events`."""
    base_texts = BaseTexts()
    _send(events, {"event": "ready"})
    while True:
        event = _answer(base, base_texts, requests.get(), events)
        # torch keeps what a round needed at its peak, for a next one that may be hours away; the
        # engine may be on the same GPU and is about to swap. Without CUDA this does nothing.
        torch.cuda.empty_cache()
        _send(events, event)


def claim_stdout() -> TextIO:
    """The real stdout as a file of our own; whatever else prints goes to stderr from now on."""
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    sys.stdout.flush()
    os.dup2(2, 1)
    return events


def _answer(
    base: LanguageModel, base_texts: BaseTexts, line: str, events: TextIO
) -> dict[str, Any]:
    """Run one round; the event that ends it."""
    round_id: int | None = None
    try:
        data = json.loads(line)
        round_id = data["round_id"]
        request = RoundRequest.from_json(data)

        def report(progress: Progress) -> None:
            _send(events, {"event": "progress", "round_id": round_id, **asdict(progress)})

        result = run_round(base, request, report, base_texts)
    except RoundFailed as error:
        return {"event": "failed", "round_id": round_id, "reason": str(error)}
    except Exception as error:  # noqa: BLE001 - the job boundary: one bad round, not the process
        _log.exception("round %s failed", round_id)
        first_line = (str(error).splitlines() or [""])[0]
        reason = f"{type(error).__name__}: {first_line}"
        return {"event": "failed", "round_id": round_id, "reason": reason}
    return {"event": "done", "round_id": round_id, "result": result.to_json()}


def _send(events: TextIO, event: dict[str, Any]) -> None:
    events.write(json.dumps(event) + "\n")
    events.flush()
