"""Options that several commands of `evaluate` have."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class ProtocolName(StrEnum):
    """Which pairs are asked about."""

    GIVEN = "given"
    GOLD_ENTITIES = "gold_entities"
    PREDICTED_ENTITIES = "predicted_entities"


class DecodingName(StrEnum):
    """How the model answers."""

    CONSTRAINED = "constrained"
    FREE = "free"


NoRelation = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|null",
        help="The negative label. Left out: the label set's own; if it has none, none with given pairs, else "
        "no_relation.",
    ),
]
Limit = Annotated[int, typer.Option("--limit", "-n", min=0, help="Most documents to read; 0 for all.")]
