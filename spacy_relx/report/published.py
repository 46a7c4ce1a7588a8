"""The published figures that a report shows beside a run's own: which there are, and where they may stand."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spacy_relx.evaluation.records import RunInfo


@dataclass(frozen=True, slots=True)
class PublishedFigure:
    """One system's published score on one data set.

    Attributes:
        system: The system, as its authors name it.
        f1: Positive-class micro-F1, 0..1.
    """

    system: str
    f1: float


@cache
def published() -> dict[str, Any]:
    """Return the packaged file of published figures."""
    data: dict[str, Any] = json.loads((files("spacy_relx.report") / "published.json").read_text(encoding="utf-8"))
    return data


def dataset_key(dataset: str) -> str | None:
    """Name under which the published figures know a data set, or None if they do not know it."""
    plain = re.sub(r"[^a-z0-9]", "", dataset.lower())
    return next((key for key, about in published()["datasets"].items() if plain in about["aliases"]), None)


def dataset_title(dataset: str) -> str:
    """Name of a data set as people write it; the name itself if nothing better is known."""
    key = dataset_key(dataset)
    return str(published()["datasets"][key]["title"]) if key else dataset


def figures_for(info: RunInfo) -> tuple[PublishedFigure, ...]:
    """Return the published figures that answer the same question as a run, best first.

    They were measured on given pairs of test sets, so a run of another protocol or split has none beside it.
    """
    data = published()
    key = dataset_key(info.dataset)
    if key is None or info.protocol != data["protocol"] or info.split != data["split"]:
        return ()
    found = [PublishedFigure(system["name"], system["f1"][key]) for system in data["systems"] if key in system["f1"]]
    return tuple(sorted(found, key=lambda figure: -figure.f1))
