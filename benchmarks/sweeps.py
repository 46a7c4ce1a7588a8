"""What the suite varies: one property at a time, around one middle."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Point:
    """One measurement of a sweep.

    Attributes:
        words: Words of a made-up document, or None for as many as its entities need.
        entities: Entities of each.
        labels: Labels without the negative, or None for CoNLL04's five.
        shots: Demonstrations.
        dtype: Number format.
        quantization: Storage of the weights.
        pack: Most tokens of a pack, or None for the device's default.
        batch: Documents that the engine is given at a time.
    """

    words: int | None = None
    entities: int = 4
    labels: int | None = None
    shots: int = 0
    dtype: str = "auto"
    quantization: str = "none"
    pack: int | None = None
    batch: int = 1

    def documents(self, n_pairs: int) -> int:
        """Documents that have about so many pairs, at least one call's worth."""
        return max(self.batch, round(n_pairs / (self.entities * (self.entities - 1))), 1)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


#: By name: the property, and the values it takes.
SWEEPS: dict[str, tuple[str, tuple[Any, ...]]] = {
    "length": ("words", (20, 40, 80, 160, 320)),
    "entities": ("entities", (2, 3, 4, 6, 8, 12, 16)),
    "labels": ("labels", (5, 20, 50, 100, 200)),
    "shots": ("shots", (0, 2, 4, 8)),
    "dtype": ("dtype", ("float32", "bfloat16")),
    "quantization": ("quantization", ("none", "int8", "nf4")),
    "pack": ("pack", (128, 256, 512, 1024, 2048, 4096)),
    "batch": ("batch", (1, 2, 4, 8, 16)),
}


def points(name: str, middle: Point, values: tuple[Any, ...] | None = None) -> list[Point]:
    """The measurements of a sweep.

    Args:
        name: One of `SWEEPS`.
        middle: What all other properties are.
        values: Other values than the sweep's own.
    """
    key, usual = SWEEPS[name]
    assert key in {field.name for field in fields(Point)}
    # What fills a pack is several documents; one document alone seldom reaches the limit.
    if name == "pack":
        middle = replace(middle, batch=max(middle.batch, 16))
    return [replace(middle, **{key: value}) for value in (usual if values is None else values)]
