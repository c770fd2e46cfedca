"""A version's artifact → what the local engine serves: merged weights, user vectors, prompt format.

Knows nothing of requests and threads.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from backend.engines.base import Condition, VersionRef
from backend.engines.weights import Weights, WeightSets
from backend.errors import Unavailable
from trainer.artifacts import ArtifactDamaged, load_version
from trainer.language_model import LanguageModel
from trainer.prompting import PromptFormat
from trainer.user_vectors import UserVectors


@dataclass(frozen=True, slots=True)
class LoadedVersion:
    """Adapter and vectors of one version; they are only ever exchanged together."""

    ref: VersionRef
    weights: Weights
    vectors: UserVectors
    prompts: PromptFormat

    def vector(
        self, condition: Condition, user_id: int | None, style: int | None = None
    ) -> Tensor | None:
        """The prefix (P, H) of a condition, or of a style in its place; None for the base model.

        Raises:
            Unavailable: the version has no such style. ValueError: the base model, in a style.
        """
        if style is not None:
            return self._style(condition, style)
        if condition is Condition.BASE:
            return None
        return self.vectors.vector(user_id if condition is Condition.PERSONAL else None)

    def _style(self, condition: Condition, style: int) -> Tensor:
        if condition is Condition.BASE:
            raise ValueError("the base model has no styles")
        styles = self.vectors.styles
        if styles is None or not 0 <= style < len(styles):
            raise Unavailable(
                f"The model has {0 if styles is None else len(styles)} styles and cannot answer in "
                f"style {style + 1}: the setting of the user model, or the styles, were changed."
            )
        return styles[style]


def load(ref: VersionRef, base: LanguageModel, sets: WeightSets) -> LoadedVersion:
    """Read and verify an artifact and merge its adapter, beside whatever is being served.

    Raises:
        ArtifactDamaged: a file is not as written, or does not fit the base model.
    """
    tensors = load_version(ref.path, base_identity=base.identity)
    vectors = tensors.vectors
    shape = (tensors.config.prefix_tokens, base.model.config.get_text_config().hidden_size)
    styles = () if vectors.styles is None else vectors.styles.unbind()
    for vector in (vectors.generic, *vectors.personal.values(), *styles):
        if vector.shape != shape or not bool(vector.isfinite().all()):
            raise ArtifactDamaged(f"{ref.path.name}: a user vector does not fit or is not finite")
    prompts = PromptFormat(base.tokenizer, tensors.config.prefix_tokens)
    return LoadedVersion(ref, sets.merge(tensors), vectors, prompts)
