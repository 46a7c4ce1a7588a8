"""The shape of a new adapter. No torch, no spaCy."""

from __future__ import annotations

from dataclasses import dataclass

from spacy_relx.errors import ConfigError

#: All attention and MLP projections of the Llama family.
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """The shape of a new adapter.

    Attributes:
        rank: Rank of its matrices.
        alpha: Its product is scaled by alpha / rank.
        target_modules: Last parts of the names of the layers that it changes.

    Raises:
        ConfigError: If a value cannot be used.
    """

    rank: int = 16
    alpha: float = 32
    target_modules: tuple[str, ...] = PROJECTIONS

    def __post_init__(self) -> None:
        if isinstance(self.rank, bool) or not isinstance(self.rank, int) or self.rank < 1:
            raise ConfigError(f"training.rank is {self.rank!r}. Expected a positive whole number.")
        if isinstance(self.alpha, bool) or not isinstance(self.alpha, (int, float)) or not self.alpha > 0:
            raise ConfigError(f"training.alpha is {self.alpha!r}. Expected a positive number.")
        if not self.target_modules or not all(isinstance(name, str) and name for name in self.target_modules):
            raise ConfigError(
                f"training.target_modules is {self.target_modules!r}. Expected names such as {', '.join(PROJECTIONS)}."
            )
