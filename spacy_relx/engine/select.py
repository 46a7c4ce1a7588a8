"""Which engine a model gets: the packed one where its assumptions hold, else the reference, with a warning."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch

from spacy_relx.engine.packed import PackedEngine
from spacy_relx.engine.reference import ReferenceEngine
from spacy_relx.engine.types import LabelIds, Prompt, Question
from spacy_relx.errors import RelxWarning

if TYPE_CHECKING:
    from spacy_relx.engine.loading import LoadedModel
    from spacy_relx.engine.spec import EngineName

#: Rotary embeddings whose frequencies depend on the longest sequence of a forward pass.
_LENGTH_DEPENDENT_ROPE = ("dynamic", "longrope")

#: A sliding window below this many tokens would cut into ordinary prompts.
_LEAST_WINDOW = 1024

#: Largest difference of scores between the two engines on the probe, by number format. In float32 it is the exactness
#: that is promised; in the short formats it catches a wrong mask or wrong positions, which are off by far more.
_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.2, torch.float16: 0.1}


def make_engine(
    loaded: LoadedModel, name: EngineName = "packed", max_pack_tokens: int | None = None
) -> PackedEngine | ReferenceEngine:
    """Make the engine `name` for a model, or the reference engine where a pack would give other answers.

    The packed engine is tried on three prompts against the reference before it is trusted.
    """
    if name == "reference":
        return ReferenceEngine(loaded)
    reason = _unsupported(loaded.model.config)
    if reason is None:
        engine = PackedEngine(loaded, max_pack_tokens)
        reason = _disagreement(engine, loaded)
        if reason is None:
            return engine
    warnings.warn(
        f"The model {loaded.spec.base!r} {reason}, so its prompts are computed one by one, which is slower and "
        'gives the right answers. Set engine="reference" in the model block to choose this without a warning.',
        RelxWarning,
        stacklevel=2,
    )
    return ReferenceEngine(loaded)


def _unsupported(config: Any) -> str | None:
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    kind = rope.get("rope_type", rope.get("type", "default")) if isinstance(rope, dict) else "default"
    if kind in _LENGTH_DEPENDENT_ROPE:
        return f"has rotary positions of the type {kind!r}, which depend on the longest prompt of a pack"
    if getattr(config, "alibi", False) or (not rope and getattr(config, "rope_theta", None) is None):
        return "has no rotary positions"
    window = getattr(config, "sliding_window", None)
    if window and window < _LEAST_WINDOW and "full_attention" not in set(getattr(config, "layer_types", None) or ()):
        return f"attends to {window} tokens only"
    if window and "sliding_attention" in set(getattr(config, "layer_types", None) or ()) and window < _LEAST_WINDOW:
        return f"has layers that attend to {window} tokens only"
    return None


def _disagreement(engine: PackedEngine, loaded: LoadedModel) -> str | None:
    """Run three prompts that share a prefix both ways; None if the scores agree."""
    config: Any = loaded.model.config
    size = int(config.vocab_size)
    ids = [(7919 * i + 104729) % size for i in range(1, 60)]
    terminal = ids.pop()
    labels = LabelIds(tuple((a, b) for a, b in zip(ids[40:44], ids[44:48])), terminal)
    prompts = [
        Prompt(tuple(ids[:6] + ids[10:20]), 6),
        Prompt(tuple(ids[:6] + ids[10:18] + ids[30:38]), 6),
        Prompt(tuple(ids[:6] + ids[10:14] + ids[20:23]), 6),
    ]
    questions = [Question(prompt, tuple(range(len(labels)))) for prompt in prompts]
    packed = engine.rank(questions, labels, top_k=len(labels))
    reference = ReferenceEngine(loaded).rank(questions, labels, top_k=len(labels))
    worst = 0.0
    for a, b in zip(packed, reference):
        scores = {score.label: score.prob for score in b.scores}
        worst = max(worst, *(abs(score.prob - scores[score.label]) for score in a.scores))
    if not worst <= _TOLERANCE.get(loaded.dtype, 0.0):  # also true of a not-a-number
        return f"gave scores that differ by {worst:.1e} when prompts were packed"
    engine.work.__init__()  # type: ignore[misc]
    return None
