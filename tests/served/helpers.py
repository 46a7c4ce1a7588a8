"""Pipelines on a served model, and what is to come of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tiny import FACTORY, pipeline

if TYPE_CHECKING:
    from pathlib import Path

    from spacy.language import Language

    from served.server import FakeServer

LABELS = ["founded_by", "headquartered_in", "works_for", "member_of"]
#: Eight, six, two and no ordered pairs within sentences.
TEXTS = [
    "Steve Jobs co-founded Apple in Cupertino. Ada Lovelace never worked for Apple.",
    "Apple hired Ada Lovelace in Cupertino.",
    "Steve Jobs met Ada Lovelace.",
    "Nobody was there.",
]
N_PAIRS = 16


def block(url: str, tokenizer: Path | None = None, **settings: Any) -> dict[str, Any]:
    """The model block; few retries that are soon over."""
    made = {"@architectures": "spacy-relx.OpenAICompatible.v1", "base_url": url, "model": "served"}
    named = {} if tokenizer is None else {"tokenizer": str(tokenizer)}
    return made | named | {"timeout": 20.0, "max_concurrency": 4, "max_retries": 8} | settings


def served(
    url: str, tokenizer: Path | None = None, component: dict[str, Any] | None = None, **settings: Any
) -> Language:
    """A pipeline whose relation extractor asks a server."""
    config: dict[str, Any] = {"labels": LABELS, "no_relation": "no_relation", "keep_no_relation": True}
    return pipeline(model=block(url, tokenizer, **settings), **config | (component or {}))


def engine(nlp: Language) -> Any:
    return nlp.get_pipe(FACTORY)._shim.engine


def questions(server: FakeServer) -> list[str]:
    """What was asked in the requests that were answered."""
    return [str(sorted(request.body.items())) for request in server.answered]
