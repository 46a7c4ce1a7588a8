"""Training a baseline: epochs that can be stopped and gone on with.

An epoch depends on the seed, its number and the weights before it, so a training that was resumed ends as one that was
not interrupted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spacy_relx.baseline import classifier as storage
from spacy_relx.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from spacy_relx.baseline.classifier import Classifier
    from spacy_relx.baseline.markers import EncodedPair

_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a baseline is trained.

    Epochs, learning rate, batch and length are the published ones. The rest is not published; it is what the
    transformers library does unless told otherwise: AdamW without weight decay, no warm-up, linear decay to zero,
    gradients clipped to a norm of 1.

    Source: the RoBERTa-base baseline of arXiv:2606.22606.

    Attributes:
        epochs: Times that every pair is seen.
        learning_rate: At the start.
        batch_size: Pairs a step.
        max_tokens: Most tokens of a pair with its markers.
        seed: Of new weights, order and dropout.
    """

    epochs: int = 3
    learning_rate: float = 2e-5
    batch_size: int = 16
    max_tokens: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "max_tokens"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"{name} is {value!r}. Expected a whole number of at least 1.")
        if not 0 < self.learning_rate < 1:
            raise ConfigError(f"learning_rate is {self.learning_rate!r}. Expected a number between 0 and 1.")


def train(
    model: Classifier,
    rows: Sequence[tuple[EncodedPair, int]],
    recipe: Recipe,
    *,
    folder: Path | None = None,
    about: Mapping[str, Any] | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> list[float]:
    """Train in place.

    Args:
        model: The model.
        rows: Pairs with their classes.
        recipe: How.
        folder: Where weights are kept after every epoch; a training that is there is gone on with.
        about: What tells this training from another, kept with the weights.
        progress: Called after every step with the steps done and the step's loss.

    Returns:
        Mean loss of every epoch.

    Raises:
        ConfigError: If the folder holds another training.
        ModelError: If the loss stops being a number.
    """
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=0.0)
    n_steps = math.ceil(len(rows) / recipe.batch_size) * recipe.epochs
    losses = _resume(model, optimizer, folder, about or {})
    step = math.ceil(len(rows) / recipe.batch_size) * len(losses)
    for epoch in range(len(losses), recipe.epochs):
        generator = torch.Generator().manual_seed(1_000_003 * recipe.seed + epoch)
        order = torch.randperm(len(rows), generator=generator).tolist()
        torch.manual_seed(1_000_003 * recipe.seed + epoch)  # dropout
        model.train(True)
        total = 0.0
        for start in range(0, len(order), recipe.batch_size):
            batch = [rows[i] for i in order[start : start + recipe.batch_size]]
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * (1 - step / n_steps)
            logits = model.logits([pair for pair, _ in batch])
            targets = torch.tensor([target for _, target in batch], device=logits.device)
            loss = torch.nn.functional.cross_entropy(logits, targets)
            value = float(loss.detach())
            if not math.isfinite(value):
                raise ModelError(
                    f"The loss is {value} at step {step + 1}. Lower the learning rate ({recipe.learning_rate})."
                )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            step += 1
            total += value * len(batch)
            if progress is not None:
                progress(step, value)
        losses.append(total / len(rows))
        if folder is not None:
            is_last = epoch + 1 == recipe.epochs
            state = model.state() if is_last else model.state() | _moments(optimizer)
            storage.save(folder, state, {**(about or {}), "losses": losses})
    model.train(False)
    return losses


def _resume(model: Classifier, optimizer: Any, folder: Path | None, about: Mapping[str, Any]) -> list[float]:
    """Take over what an earlier run left; return its losses."""
    found = storage.load(folder) if folder is not None else None
    if found is None:
        return []
    state, left = found
    changed = sorted(key for key in about if left.get(key) != about[key])
    if changed:
        raise ConfigError(
            f"{folder} holds a baseline with another {', '.join(changed)}. Name another folder, or remove this one."
        )
    model.load_state({key: value for key, value in state.items() if not key.startswith("optimizer.")})
    for number, parameter in enumerate(model.parameters()):
        values = {name: state.get(f"optimizer.{number}.{name}") for name in _MOMENTS}
        if all(value is not None for value in values.values()):
            optimizer.state[parameter] = {
                name: value if name == "step" else value.to(parameter.device)
                for name, value in values.items()
                if value is not None
            }
    return list(left["losses"])


def _moments(optimizer: Any) -> dict[str, Any]:
    """Return the optimiser's memory, by the number of the parameter."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return {
        f"optimizer.{number}.{name}": optimizer.state[parameter][name].detach().cpu().contiguous().clone()
        for number, parameter in enumerate(parameters)
        if parameter in optimizer.state
        for name in _MOMENTS
    }
