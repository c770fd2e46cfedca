"""Our step against the plain forms it is measured beside: the same loss and the same gradient.

In fp32 both are as far from the true gradient (6e-5 on the embedded model), so that what they have
in common shows in fp64 only: there they differ by rounding, and by nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from benchmarks.pdpo_pairs import USERS, Lengths, made_up_pairs
from benchmarks.pdpo_peers import AuthorsScheme
from benchmarks.references import base_logps
from tests.trainer.conftest import base, tokenizer  # noqa: F401 - fixtures
from trainer.adapter import attached, initial_adapter
from trainer.config import TrainConfig
from trainer.language_model import LanguageModel, load_language_model
from trainer.learning import Learner
from trainer.user_models import initial_users, users_from_tensors

CONFIG = TrainConfig(
    prefix_tokens=4,
    alpha=0.3,
    learning_rate_adapter=0.0,
    learning_rate_vector=0.0,
    clip_norm_adapter=float("inf"),
)
SHORT = Lengths(prompt=(20, 26), response=(4, 9))


Step = tuple[float, torch.Tensor]  # its loss and its gradient


def steps(base: LanguageModel, config: TrainConfig, count: int) -> tuple[Step, Step, Step]:  # noqa: F811
    """Ours, and the peer's two forms, on the same pairs from the same weights, in any precision."""
    pairs = made_up_pairs(
        base, count=count, prefix_tokens=config.prefix_tokens, lengths=SHORT, seed=1
    )
    references = base_logps(base.model, pairs, max_tokens=500)
    tensors = initial_users(base.model, base.tokenizer, config).tensors()
    tensors["generic"] = tensors["generic"].to(base.model.dtype)
    users = users_from_tensors("individual", tensors, range(1, USERS + 1), base.device)
    noise = torch.Generator().manual_seed(1)
    weights = {
        name: 0.05 * torch.randn(w.shape, generator=noise, dtype=torch.float32)
        for name, w in initial_adapter(base.model, config).items()
    }
    with attached(base.model, config, weights) as adapter:
        learned = [*adapter.parameters.values(), *users.shared_parameters().values()]
        learned += list(users.own_parameters().values())[:count]

        def gradient() -> torch.Tensor:
            grads = [p.grad for p in learned if p.grad is not None]
            assert len(grads) == len(learned)
            return torch.cat([grad.flatten().clone() for grad in grads])

        ours = Learner(
            base.model,
            adapter.parameters,
            users=users,
            references=references,
            config=config,
            state={},
        )
        mine = ours.step(pairs)["loss"], gradient()
        authors = AuthorsScheme(base, adapter, users, config).step(pairs), gradient()
        plain = AuthorsScheme(base, adapter, users, config, references).step(pairs), gradient()
    return mine, authors, plain


def apart(one: Step, other: Step) -> tuple[float, float]:
    """How far `one` is from the other, its loss and its gradient, in proportion."""
    loss = abs(one[0] - other[0]) / abs(other[0])
    return loss, float((one[1] - other[1]).norm() / other[1].norm())


def differences(base: LanguageModel, config: TrainConfig, count: int) -> tuple[float, float]:  # noqa: F811
    """The larger ones of ours from both forms of the peer."""
    mine, *peers = steps(base, config, count)
    losses, slopes = zip(*(apart(mine, peer) for peer in peers), strict=True)
    return max(losses), max(slopes)


@pytest.mark.parametrize("forward_tokens", [1, 100, 10_000])
def test_a_step_is_that_of_the_plain_two_pass_form(base, forward_tokens: int) -> None:  # noqa: F811
    loss, slope = differences(base, replace(CONFIG, forward_tokens=forward_tokens), 5)
    assert loss < 2e-6
    assert slope < 1e-5


@pytest.fixture
def fp64() -> Iterator[None]:
    """Whatever is made without a type has 64 bits."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class WideNorm(nn.Module):
    """An RMS norm that stays in fp64; the model's own goes through fp32."""

    def __init__(self, norm: LlamaRMSNorm) -> None:
        super().__init__()
        self.weight, self.eps = norm.weight, norm.variance_epsilon

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(hidden, self.weight.shape, self.weight, self.eps)


def widen(base: LanguageModel) -> None:  # noqa: F811
    """Let the model compute in fp64 throughout."""
    base.model.double()
    for name, module in list(base.model.named_modules()):
        if isinstance(module, LlamaRMSNorm):
            base.model.set_submodule(name, WideNorm(module))


@pytest.mark.usefixtures("fp64")
@pytest.mark.parametrize("forward_tokens", [100, 10_000])
def test_in_fp64_a_step_and_the_plain_form_differ_by_rounding(base, forward_tokens: int) -> None:  # noqa: F811
    widen(base)
    loss, slope = differences(base, replace(CONFIG, forward_tokens=forward_tokens), 5)
    assert loss < 2e-14
    assert slope < 1e-12


@pytest.mark.embedded
def test_on_the_embedded_model_a_step_is_the_plain_form_without_its_rounding(
    embedded_model_path,
    request: pytest.FixtureRequest,
) -> None:
    loaded = load_language_model(embedded_model_path, "1d" * 32, device="cpu", dtype="float32")
    ours, _, rounded = steps(loaded, CONFIG, 1)
    request.getfixturevalue("fp64")
    widen(loaded)
    _, _, plain = steps(loaded, CONFIG, 1)
    loss, slope = apart(ours, plain)
    assert loss < 1e-5
    assert slope < 1e-5
    # torch sums the exponentials of 49,152 words in fp32, and its rounding is larger.
    assert apart(ours, rounded)[1] < 1e-4


@pytest.mark.embedded
@pytest.mark.usefixtures("fp64")
def test_in_fp64_they_differ_by_rounding_on_the_embedded_model_too(embedded_model_path) -> None:
    loaded = load_language_model(embedded_model_path, "1d" * 32, device="cpu", dtype="float32")
    widen(loaded)
    loss, slope = differences(loaded, CONFIG, 1)
    assert loss < 1e-12
    assert slope < 1e-12


def test_pairs_have_the_lengths_asked_for(base) -> None:  # noqa: F811
    lengths = Lengths(prompt=(40, 60), response=(60, 72))
    pairs = made_up_pairs(base, count=6, prefix_tokens=4, lengths=lengths, seed=2)
    assert [p.pair.user_id for p in pairs] == [1, 2, 3, 4, 1, 2]
    for pair in pairs:
        # Text that is cut into tokens anew may come to one or two others.
        assert 38 <= len(pair.chosen.prompt.token_ids) - 4 <= 62
        assert 60 <= len(pair.pair.chosen.token_ids) <= 72
        assert 60 <= len(pair.pair.rejected.token_ids) <= 72
    again = made_up_pairs(base, count=6, prefix_tokens=4, lengths=lengths, seed=2)
    assert again == pairs
