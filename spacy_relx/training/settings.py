"""The training settings of the component: the adapter's shape, how rows are made, and where checkpoints are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from spacy_relx.config_strings import check_config_strings
from spacy_relx.errors import ConfigError
from spacy_relx.training.lora_settings import PROJECTIONS, LoraSettings
from spacy_relx.training.mixture import Mixture


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """How the component is trained.

    Attributes:
        lora: Shape of a new adapter; one that the model block names goes on with its own.
        mixture: How rows are made of annotated documents.
        max_pack_tokens: Most tokens of one forward and backward pass, which bounds the memory; None: by device.
        gradient_checkpointing: Whether a layer is computed again on the way back instead of kept in memory: a fraction
            of the memory for about 40 % more time, and the same gradients.
        seed: Of the adapter's random start.
        checkpoint: A folder from which a run that was killed goes on, or None.
        checkpoint_every: Optimiser steps between two checkpoints.

    Raises:
        ConfigError: If a value cannot be used.
    """

    lora: LoraSettings = field(default_factory=LoraSettings)
    mixture: Mixture = field(default_factory=Mixture)
    max_pack_tokens: int | None = None
    gradient_checkpointing: bool = False
    seed: int = 0
    checkpoint: Path | None = None
    checkpoint_every: int = 100

    def __post_init__(self) -> None:
        if not isinstance(self.mixture, Mixture):
            raise ConfigError(f"training.mixture is {self.mixture!r}. Expected a block such as spacy-relx.Mixture.v1.")
        budget = self.max_pack_tokens
        if budget is not None and (isinstance(budget, bool) or not isinstance(budget, int) or budget < 1):
            raise ConfigError(f"training.max_pack_tokens is {budget!r}. Expected a positive whole number, or null.")
        if not isinstance(self.gradient_checkpointing, bool):
            raise ConfigError(
                f"training.gradient_checkpointing is {self.gradient_checkpointing!r}. Expected true or false."
            )
        if isinstance(self.seed, bool) or not isinstance(self.seed, int):
            raise ConfigError(f"training.seed is {self.seed!r}. Expected a whole number.")
        every = self.checkpoint_every
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise ConfigError(f"training.checkpoint_every is {every!r}. Expected a positive whole number.")

    def identity(self) -> dict[str, Any]:
        """What decides the course of a run, as plain values; two runs that differ here cannot share a checkpoint.

        The pack budget and gradient checkpointing are not among it: they are what a user changes when a row or the
        memory stopped a run.
        """
        return {
            "lora": asdict(self.lora),
            "mixture": self.mixture.to_dict(),
            "seed": self.seed,
        }


def make_training(
    rank: Any = 16,
    alpha: Any = 32,
    target_modules: Any = PROJECTIONS,
    mixture: Any = None,
    max_pack_tokens: Any = None,
    seed: Any = 0,
    checkpoint: Any = None,
    checkpoint_every: Any = 100,
    gradient_checkpointing: Any = False,
) -> TrainingSettings:
    """Create the settings `spacy-relx.Training.v1`.

    Args:
        rank: Rank of a new adapter's matrices.
        alpha: Their product is scaled by alpha / rank.
        target_modules: Last parts of the names of the layers that it changes.
        mixture: A block `spacy-relx.Mixture.v1`; None: its defaults.
        max_pack_tokens: Most tokens of one forward and backward pass; None: by device.
        seed: Of the adapter's random start.
        checkpoint: A folder from which a run that was killed goes on, or None.
        checkpoint_every: Optimiser steps between two checkpoints.
        gradient_checkpointing: Whether a layer is computed again on the way back instead of kept in memory.

    Raises:
        ConfigError: If a value cannot be used.
    """
    if checkpoint is not None and (not isinstance(checkpoint, (str, Path)) or not str(checkpoint)):
        raise ConfigError(f"training.checkpoint is {checkpoint!r}. Expected the path of a folder, or null.")
    check_config_strings(str(checkpoint), "training.checkpoint")
    if isinstance(target_modules, str) or not isinstance(target_modules, Sequence):
        raise ConfigError(f"training.target_modules is {target_modules!r}. Expected a list of names.")
    return TrainingSettings(
        lora=LoraSettings(rank, alpha, tuple(target_modules)),
        mixture=Mixture() if mixture is None else mixture,
        max_pack_tokens=max_pack_tokens,
        seed=seed,
        checkpoint=None if checkpoint is None else Path(checkpoint),
        checkpoint_every=checkpoint_every,
        gradient_checkpointing=gradient_checkpointing,
    )
