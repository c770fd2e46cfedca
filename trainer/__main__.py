"""`python -m trainer`: the trainer process. Steps back (nice) before it does anything heavy."""

from __future__ import annotations

import argparse
import json
import logging
import os
import queue
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainer.language_model import LanguageModel

_log = logging.getLogger(__name__)


def main() -> int:
    """Parse the command line and serve rounds; returns 2 when the model cannot be loaded."""
    parser = argparse.ArgumentParser(prog="trainer", description="Runs training rounds.")
    parser.add_argument("--model", type=Path, required=True, help="folder of the base model")
    parser.add_argument("--identity", required=True, help="checksum of its weights")
    parser.add_argument(
        "--shared", action="store_true", help="attach the base weights that the first line names"
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto", choices=["auto", "float32", "bfloat16"])
    parser.add_argument("--threads", type=int, default=0, help="CPU threads, 0: all cores")
    parser.add_argument("--nice", type=int, default=0, help="how far to step back")
    args = parser.parse_args()
    os.nice(args.nice)
    # Threads that wait by spinning take the cores from whoever generates. OpenMP reads these once,
    # when torch is loaded, hence the late import.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    import torch  # noqa: PLC0415

    from trainer.kernels import kernels  # noqa: PLC0415
    from trainer.worker import claim_stdout, serve, watch_stdin  # noqa: PLC0415

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    events = claim_stdout()
    requests = watch_stdin()
    if args.threads:
        torch.set_num_threads(args.threads)
    # The compiler is at work while the model is read.
    threading.Thread(target=kernels, name="compiling", daemon=True).start()
    try:
        base = _load(args, requests)
    except (OSError, ValueError) as error:
        print(f"trainer: the model cannot be loaded: {error}", file=sys.stderr)  # noqa: T201
        return 2
    serve(base, requests, events)


def _load(args: argparse.Namespace, requests: queue.SimpleQueue[str]) -> LanguageModel:
    """The base model: attached if that was said and can be, else a copy of its own.

    Raises:
        OSError, ValueError: it cannot be loaded.
    """
    from trainer.language_model import load_language_model  # noqa: PLC0415
    from trainer.sharing import CannotAttach, attach  # noqa: PLC0415

    handles = json.loads(requests.get())["weights"] if args.shared else None
    if handles is not None:
        try:
            return attach(args.model, args.identity, handles)
        except CannotAttach as error:
            _log.warning("the base weights are loaded once more, sharing failed: %s", error)
    return load_language_model(args.model, args.identity, device=args.device, dtype=args.dtype)


if __name__ == "__main__":
    sys.exit(main())
