"""One round: a parent version and preference pairs in, an artifact directory out.

    reference → attach parent → train → gate → save (also when the gate refuses)

The base model is the same object before and after, bit for bit, so that one process runs round
after round. Knows no database, no schedule and nobody's name.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from trainer import artifacts
from trainer.adapter import AttachedAdapter, adapter_config_json, attached, initial_adapter
from trainer.artifacts import ArtifactDamaged, VersionTensors, write_artifact
from trainer.batching import PairRows, pair_rows, passes
from trainer.config import TrainConfig
from trainer.gate import GateFigures, ill_alone, judge, named_figures
from trainer.language_model import LanguageModel
from trainer.learning import Learner
from trainer.measuring import Examination, ParentState, measure, probe_messages
from trainer.own_pairs import OwnPairs, examined, read_own_pairs
from trainer.probes import BaseTexts
from trainer.probing import writer_name
from trainer.prompting import PromptFormat
from trainer.readings import PairReading, own_readings
from trainer.references import base_references, own_references
from trainer.scoring import check_head
from trainer.types import (
    GateReport,
    Phase,
    Progress,
    RoundFailed,
    RoundRequest,
    RoundResult,
)
from trainer.user_models import UserModel, initial_users, users_from_tensors

Report = Callable[[Progress], None]

_TAKEN_BACK_AT_MOST = 2  # times: each lets the model write once more


@dataclass(frozen=True, slots=True)
class _Parent:
    """A verified parent version, as far as training goes on from it."""

    version: VersionTensors
    adapter: bytes
    vectors: dict[str, Tensor]
    optimizer: dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class _Work:
    """What a round works with; the model has `adapter` attached.

    Attributes:
        references: response_id → summed log π_ref, nats, of every response in the pairs.
        own_references: the same as users' own terms have it, of those held out too.
    """

    base: LanguageModel
    adapter: AttachedAdapter
    request: RoundRequest
    parent: _Parent
    users: UserModel
    users_before: UserModel
    pairs: Sequence[PairRows]
    held_out: Sequence[PairRows]
    references: Mapping[int, float]
    own_references: Mapping[int, float]


@dataclass(frozen=True, slots=True)
class _Learnt:
    """What training came to.

    Attributes:
        before: the held-out pairs under the parent. own: the round's, before and after.
        misfits: users of whom nothing that was learnt is left.
        taken_back: users whose own numbers are as before the round.
    """

    learner: Learner
    curve: list[dict[str, float]]
    train_s: float
    before: Sequence[PairReading]
    own: OwnPairs
    misfits: tuple[int, ...]
    taken_back: tuple[int, ...] = ()


def write_initial(
    base: LanguageModel, config: TrainConfig, target: Path, directions: Tensor | None = None
) -> str:
    """Write the artifact served before the first round: e₀ from words, an adapter without effect.

    Args:
        directions: (K, P, H), of the styled user model.

    Returns:
        sha256 of its manifest.

    Raises:
        ValueError: the recipe does not fit the model. FileExistsError; OSError.
    """
    files = _files(
        adapter=safetensors.torch.save(initial_adapter(base.model, config)),
        users=initial_users(base.model, base.tokenizer, config, directions),
        optimizer={},
        config=config,
        metrics={"curve": [], "gate": None},
    )
    return write_artifact(target, files, base_identity=base.identity)


def run_round(
    base: LanguageModel,
    request: RoundRequest,
    report: Report,
    base_texts: BaseTexts,
    clock: Callable[[], float] = time.perf_counter,
) -> RoundResult:
    """Train on `request.pairs`, judge, and write `request.output`, judged well or not.

    A round of kind `vector` changes only what is the pairs' users' own: the adapter, what users
    share and everybody else's vector are the parent's, bit for bit.

    The same base, request and thread count give the same tensors, whatever is held out.

    What suits its user worse than nothing, even on what it was learnt from, is unlearnt before the
    gate looks. Where nothing but some learning users' own texts speaks against a round, it is taken
    back for them, unless nobody else learnt. One user's noisy choices shall not keep everybody from
    the rest.

    Args:
        report: called between steps, on this thread.
        base_texts: the process's own; base-model texts are written once.
        clock: seconds, for the figures only.

    Raises:
        RoundFailed: damaged parent, unusable pairs, non-finite numbers, no room; nothing is left.
    """
    output = Path(request.output)
    artifacts.sweep_partials(output.parent)
    parent = _read_parent(base, request)
    pairs, held_out = _rows(base, request)
    references, fresh = base_references(base, pairs, held_out, request.config, report)
    users, users_before = (_users(base, request, parent) for _ in range(2))
    with _adapter(base, request, parent) as adapter:
        own = own_references(
            base, adapter, users, (pairs, held_out), references=references, config=request.config
        )
        work = _Work(
            base, adapter, request, parent, users, users_before, pairs, held_out, references, own
        )
        learnt = _learn(work, report, clock)
        gate = _judged(work, learnt, base_texts)
        whole = request.kind == "full"
        trained = safetensors.torch.save(adapter.tensors()) if whole else parent.adapter
        optimizer = learnt.learner.state()
    report(Progress(phase=Phase.SAVE, step=0, steps=1))
    took = {"curve": learnt.curve, "train_s": learnt.train_s}
    files = _files(
        adapter=trained,
        users=users,
        optimizer=optimizer,
        config=request.config,
        metrics={"kind": request.kind, "gate": asdict(gate), **took},
    )
    try:
        manifest = write_artifact(output, files, base_identity=base.identity)
    except OSError as error:
        raise RoundFailed(f"the round could not be written: {error}") from error
    return RoundResult(
        artifact=str(output),
        manifest_sha256=manifest,
        gate=gate,
        curve=tuple(learnt.curve),
        reference_logps_nats=fresh,
        train_s=learnt.train_s,
    )


def _learn(work: _Work, report: Report, clock: Callable[[], float]) -> _Learnt:
    """Train, and put back what suits its user worse than nothing."""
    request, own_references, users = work.request, work.own_references, work.users
    config = request.config
    recipe = config if request.kind == "full" else config.for_vector_round()
    some = examined(work.pairs)
    before, own_before = (
        own_readings(work.base, users, read, own_references, config)
        for read in (work.held_out, some)
    )
    learner = Learner(
        work.base.model,
        work.adapter.parameters,
        users=users,
        references=work.references,
        own_references=own_references,
        config=recipe,
        state=work.parent.optimizer,
    )
    started = clock()
    curve = _train(
        learner, work.pairs, recipe, round_id=request.round_id, report=report, clock=clock
    )
    train_s = clock() - started
    report(Progress(phase=Phase.GATE, step=0, steps=1))
    own = read_own_pairs(
        work.base, users, some, own_before, references=own_references, config=config
    )
    misfits = own.misfits()
    for user in misfits:
        learner.forget(user)
    return _Learnt(learner, curve, train_s, before, own.without(misfits), misfits)


def _judged(work: _Work, learnt: _Learnt, base_texts: BaseTexts) -> GateReport:
    """The verdict; what the round did to whoever alone writes unsound texts is taken back first."""
    bounds = work.request.config.gate
    left = {pair.user_id for pair in work.request.pairs} - {*learnt.misfits}
    figures, samples = _measured(work, learnt, base_texts)
    for _ in range(_TAKEN_BACK_AT_MOST):
        ill = _users_of(ill_alone(figures, bounds), left)
        left.difference_update(ill)
        if not ill or not left:  # a round of which nothing is left is refused
            break
        learnt = _taken_back(work, learnt, ill)
        figures, samples = _measured(work, learnt, base_texts)
    reasons = judge(figures, bounds)
    counted = {"users_unlearnt": len(learnt.misfits), "users_taken_back": len(learnt.taken_back)}
    return GateReport(
        passed=not reasons,
        reasons=reasons,
        figures={**named_figures(figures), **counted},
        samples=samples,
    )


def _measured(
    work: _Work, learnt: _Learnt, base_texts: BaseTexts
) -> tuple[GateFigures, tuple[dict[str, object], ...]]:
    request = work.request
    config = request.config
    examination = Examination(
        kind=request.kind,
        round_id=request.round_id,
        pairs=work.pairs,
        held_out=work.held_out,
        before=learnt.before,
        own=learnt.own,
        own_references=work.own_references,
        parent=ParentState(work.parent.version.adapter, work.users_before, work.parent.vectors),
        prompts=probe_messages(request.probe_prompts, request.pairs, config.gate.probe_prompts),
        put_back={*learnt.misfits, *learnt.taken_back},
    )
    return measure(
        work.base, work.adapter, work.users, examination, config=config, base_texts=base_texts
    )


def _taken_back(work: _Work, learnt: _Learnt, users: Sequence[int]) -> _Learnt:
    """What is these users' own is as it was before the round, but for style shares."""
    before = work.users_before.own_parameters()
    for user in users:
        learnt.learner.take_back(user, before[f"user.{user}"])
    own = read_own_pairs(
        work.base,
        work.users,
        learnt.own.pairs,
        learnt.own.before,
        references=work.own_references,
        config=work.request.config,
    )
    return replace(learnt, own=own, taken_back=(*learnt.taken_back, *users))


def _users_of(writers: Sequence[str], learners: Collection[int]) -> tuple[int, ...]:
    """These writers as users; none where not all of them are learners."""
    names = {writer_name(user): user for user in learners}
    known = tuple(names[writer] for writer in writers if writer in names)
    return known if len(known) == len(writers) else ()


@contextmanager
def _adapter(
    base: LanguageModel, request: RoundRequest, parent: _Parent
) -> Iterator[AttachedAdapter]:
    """The parent's, attached."""
    with ExitStack() as stack:
        try:
            weights = parent.version.adapter
            adapter = stack.enter_context(attached(base.model, request.config, weights))
        except ValueError as error:
            raise RoundFailed(str(error)) from error
        yield adapter


def _rows(base: LanguageModel, request: RoundRequest) -> tuple[list[PairRows], list[PairRows]]:
    """The pairs to train on and those held out, as the model reads them."""
    prompts = PromptFormat(base.tokenizer, request.config.prefix_tokens)
    try:
        check_head(base.model)
        pairs, held_out = (
            [pair_rows(pair, prompts) for pair in some]
            for some in (request.pairs, request.held_out)
        )
    except ValueError as error:
        raise RoundFailed(str(error)) from error
    return pairs, held_out


def _read_parent(base: LanguageModel, request: RoundRequest) -> _Parent:
    path = Path(request.parent)
    if not request.pairs:
        raise RoundFailed("there are no pairs to train on")
    try:
        files = artifacts.read_verified(path, base_identity=base.identity)
        version = artifacts.parse_version(files, path, base.identity)
        vectors = safetensors.torch.load(files[artifacts.USER_VECTORS])
        optimizer = safetensors.torch.load(files[artifacts.TRAINER_STATE])
    except (ArtifactDamaged, KeyError) as error:
        raise RoundFailed(f"the parent version is damaged: {error}") from error
    if (why := request.config.misfit(version.config)) is not None:
        raise RoundFailed(why)
    return _Parent(version, files[artifacts.ADAPTER_WEIGHTS], vectors, optimizer)


def _users(base: LanguageModel, request: RoundRequest, parent: _Parent) -> UserModel:
    """The parent's users, with the style shares that the request brings."""
    learning = [pair.user_id for pair in request.pairs]
    strangers = sorted(request.style_shares.keys() - set(learning))
    if strangers:
        raise RoundFailed(f"style shares of users who do not learn in this round: {strangers}")
    try:
        shares = {
            user: torch.tensor(own, dtype=torch.float32)
            for user, own in request.style_shares.items()
        }
        return users_from_tensors(
            request.config.user_model, parent.vectors, learning, base.device, shares
        )
    except ValueError as error:
        raise RoundFailed(str(error)) from error


def _train(
    learner: Learner,
    pairs: Sequence[PairRows],
    config: TrainConfig,
    *,
    round_id: int,
    report: Report,
    clock: Callable[[], float],
) -> list[dict[str, float]]:
    batches = list(passes(len(pairs), config, seed=f"{config.seed}/{round_id}"))
    steps = len(batches)
    curve: list[dict[str, float]] = []
    for step, (epoch, batch, shared) in enumerate(batches, start=1):
        started = clock()
        try:
            figures = learner.step([pairs[i] for i in batch], shared=shared)
        except RoundFailed as error:
            raise RoundFailed(f"{error} at step {step} of {steps}") from error
        curve.append({"step": step, "epoch": epoch, **figures, "s": clock() - started})
        report(Progress(phase=Phase.TRAIN, step=step, steps=steps, figures=curve[-1]))
    return curve


def _files(
    *,
    adapter: bytes,
    users: UserModel,
    optimizer: dict[str, Tensor],
    config: TrainConfig,
    metrics: Mapping[str, object],
) -> dict[str, bytes]:
    """The files of a round directory, as `trainer.artifacts` names them."""
    return {
        artifacts.TRAIN_CONFIG: json.dumps(config.to_json(), indent=1).encode(),
        artifacts.ADAPTER_CONFIG: adapter_config_json(config),
        artifacts.ADAPTER_WEIGHTS: adapter,
        artifacts.USER_VECTORS: safetensors.torch.save(users.tensors()),
        artifacts.TRAINER_STATE: safetensors.torch.save(optimizer),
        artifacts.METRICS: json.dumps(metrics, indent=1, allow_nan=False).encode(),
    }
