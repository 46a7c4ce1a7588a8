"""The relations of Docs as one interactive graph: a page that needs no network.

Owns what the page knows: which entities and relations, and the sentences they came from. What the page does is in
`graph.js`, how it looks in `graph.css`; d3-force arranges the nodes and Cytoscape.js draws them, both in `vendor/`.
"""

from __future__ import annotations

import base64
import hashlib
import json
from typing import TYPE_CHECKING, Any

from markupsafe import Markup
from spacy.displacy.render import EntityRenderer

from spacy_relx.errors import DataError
from spacy_relx.excerpts import excerpt
from spacy_relx.merging import Graph, merge_relations
from spacy_relx.relation import DEFAULT_ATTR
from spacy_relx.view.html import Page, resource, show, template, write_page

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

    from spacy.tokens import Doc

    from spacy_relx.merging import Entity, Evidence, MergedRelation

LIBRARIES = ("d3-dispatch", "d3-quadtree", "d3-timer", "d3-force", "cytoscape")
"""In the order in which they need each other."""
MAX_NAMES = 8
"""Texts of one entity that the page lists."""


def graph(
    docs: Doc | Iterable[Doc] | Graph,
    *,
    jupyter: bool | None = None,
    min_score: float = 0.0,
    labels: Collection[str] | None = None,
    max_relations: int = 1000,
    title: str = "Relations",
    options: dict[str, Any] | None = None,
) -> Page:
    """Return a page with the relations of one or many Docs as a graph that can be searched, filtered and dragged.

    Mentions of one name and entity type, or of one knowledge-base id, are one node. An edge shows the sentences it
    came from.

    Args:
        docs: A Doc or Docs with relations, of which one at a time is held; or what `merging.merge_relations` returns,
            which can be told other rules for what is one entity.
        jupyter: True shows the page at once in the notebook that runs this; otherwise the returned value shows itself
            when it is the value of a cell.
        min_score: Relations with a lower score are left out.
        labels: The relation labels to take; None for all.
        max_relations: Relations that the page gets, those found in most places first. It says how many there are.
        title: The page's heading.
        options: displaCy's `colors` of entity types, and `attr` (name of the extension).

    Raises:
        DataError: If something else than a Doc is given, or `max_relations` is below 1.
    """
    options = options or {}
    if max_relations < 1:
        raise DataError(f"max_relations is {max_relations!r}. Expected at least 1.")
    if isinstance(docs, Graph):
        merged = docs
        chosen = [r for r in merged.relations if r.score >= min_score and (labels is None or r.label in labels)]
    else:
        attr = options.get("attr", DEFAULT_ATTR)
        merged = merge_relations(docs, attr=attr, min_score=min_score, labels=labels)
        chosen = list(merged.relations)
    data = _contents(merged, chosen, max_relations, EntityRenderer(options))
    scripts = [*(resource(f"vendor/{library}.min.js") for library in LIBRARIES), resource("graph.js")]
    html = template("graph.html.jinja").render(
        title=title,
        n_docs=merged.n_docs,
        style=Markup(resource("graph.css")),
        scripts=[Markup(script) for script in scripts],
        hashes=[_csp_hash(script) for script in scripts],
        data=Markup(_json(data)),
        licence=Markup(resource("vendor/d3.LICENSE")),  # Cytoscape.js has its own in the file itself
    )
    page = Page(html)
    return show(page) if jupyter else page


def save_graph(docs: Doc | Iterable[Doc] | Graph, path: str | Path, **kwargs: Any) -> Path:
    """Write the page to `path` and return the path; `kwargs` are those of `graph`."""
    return write_page(graph(docs, **kwargs), path)


def _contents(
    merged: Graph, relations: list[MergedRelation], max_relations: int, renderer: EntityRenderer
) -> dict[str, Any]:
    """Return what the page's script reads; relations name their entities by place in the list of entities."""
    shown = relations[:max_relations]
    keys = dict.fromkeys(key for relation in shown for key in (relation.head, relation.tail))
    places = {key: place for place, key in enumerate(keys)}
    return {
        "nRelations": len(relations),
        "nLoops": merged.n_loops,
        "entities": [_entity(merged.entities[key], renderer) for key in keys],
        "relations": [
            {
                "head": places[r.head],
                "tail": places[r.tail],
                "label": r.label,
                "score": round(r.score, 4),
                "n": r.n,
                "nDocs": r.n_docs,
                "evidence": [_evidence(evidence) for evidence in r.evidence],
            }
            for r in shown
        ],
    }


def _entity(entity: Entity, renderer: EntityRenderer) -> dict[str, Any]:
    return {
        "name": entity.name,
        "names": entity.names[1 : 1 + MAX_NAMES],
        "type": entity.label,
        "kbId": entity.kb_id,
        "n": entity.n_mentions,
        "color": renderer.colors.get(entity.label.upper(), renderer.default_color),
    }


def _evidence(evidence: Evidence) -> dict[str, Any]:
    segments = excerpt(evidence.text, (0, len(evidence.text)), evidence.head, evidence.tail)
    return {
        "doc": evidence.doc,
        "score": round(evidence.score, 4),
        # Segments, not offsets: JavaScript counts characters beyond the first 65,536 twice.
        "segments": [[segment.text, segment.role] for segment in segments],
    }


def _json(data: dict[str, Any]) -> str:
    """Return JSON that can stand in a script element: no text of a document can end the element or open another."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text


def _csp_hash(script: str) -> str:
    """Return what the page's content security policy calls this script by."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
