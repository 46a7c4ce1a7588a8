"""Docs with their entities marked, their relations as arcs, and a table of them.

Owns what is shown and where the arcs go. The drawing itself is displaCy's: its entity renderer for the text, its
dependency renderer for the arcs. The page around them is `documents.html.jinja`.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from markupsafe import Markup
from spacy.displacy import get_doc_settings
from spacy.displacy.render import EntityRenderer
from spacy.tokens import Doc

from spacy_relx.errors import DataError
from spacy_relx.excerpts import excerpt
from spacy_relx.relation import DEFAULT_ATTR, Relation, register
from spacy_relx.view.arcs import draw_arcs
from spacy_relx.view.html import Html, show, template, write_page

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from pathlib import Path

    from spacy.tokens import Span


def render(
    docs: Doc | Iterable[Doc],
    *,
    page: bool = False,
    jupyter: bool | None = None,
    min_score: float = 0.0,
    labels: Collection[str] | None = None,
    options: dict[str, Any] | None = None,
) -> Html:
    """Return HTML that shows each Doc's entities, its relations as arcs, and a table of the relations.

    Args:
        docs: A Doc or Docs with `Doc._.relations`.
        page: Whether to return a whole page rather than a part to put into one.
        jupyter: True shows the picture at once in the notebook that runs this; otherwise the returned value shows
            itself when it is the value of a cell.
        min_score: Relations with a lower score are left out.
        labels: The relation labels to show; None for all.
        options: displaCy's options of both styles (`colors`, `ents`, `color`, `bg`, `font`), and `attr` (name of the
            extension), `max_gap` (tokens between two mentions before some are left out of the picture, 24) and
            `max_sentences` (a relation over more sentences is in the table only, 6).

    Raises:
        DataError: If something else than a Doc is given.
    """
    options = {"color": "currentColor", "bg": "transparent", "font": "inherit"} | (options or {})
    register(attr := options.get("attr", DEFAULT_ATTR))
    shown = []
    docs = [docs] if isinstance(docs, Doc) else list(docs)
    for number, doc in enumerate(docs, 1):
        if not isinstance(doc, Doc):
            raise DataError(f"{doc!r} cannot be drawn. Expected a spaCy Doc or an iterable of Docs.")
        relations = [r for r in getattr(doc._, attr) if r.score >= min_score and (labels is None or r.label in labels)]
        title = doc.user_data.get("title") or (f"Document {number}" if len(docs) > 1 else None)
        shown.append(_doc_context(doc, relations, title, options))
    html = Html(template("documents.html.jinja").render(docs=shown, page=page, title="Relations"))
    return show(html) if jupyter else html


def save(docs: Doc | Iterable[Doc], path: str | Path, **kwargs: Any) -> Path:
    """Write the picture as a page to `path` and return the path; `kwargs` are those of `render`."""
    return write_page(render(docs, page=True, **kwargs), path)


def _doc_context(doc: Doc, relations: list[Relation], title: str | None, options: dict[str, Any]) -> dict[str, Any]:
    settings = get_doc_settings(doc)
    sentences = list(doc.sents) if doc.has_annotation("SENT_START") else [doc[:]]
    # The number of each token's sentence, found once: a Doc may have thousands of sentences and of relations.
    number = {token.i: n for n, sentence in enumerate(sentences) for token in sentence} if relations else {}
    placed = [
        (number[min(r.head.start, r.tail.start)], number[max(r.head.end, r.tail.end) - 1], r)
        for r in sorted(relations, key=lambda r: (r.head.start, r.tail.start, -r.score))
    ]
    pictures = []
    for first, last in _scopes(placed, options.get("max_sentences", 6)):
        scope = doc[sentences[first].start : sentences[last].end]
        inside = [r for r_first, r_last, r in placed if first <= r_first and r_last <= last]
        pictures.append(draw_arcs(scope, inside, settings, options))
    text = doc.text
    rows = [
        {"relation": r, "sentence": _around(text, doc[sentences[first].start : sentences[last].end], r)}
        for first, last, r in placed
    ]
    entities = EntityRenderer(options)
    return {
        "title": title,
        "settings": settings,
        "text": Markup(_entities(doc, relations, settings, options)),
        "pictures": [Markup(picture) for picture in pictures if picture],
        "rows": rows,
        "colors": {
            m.label_: entities.colors.get(m.label_.upper(), entities.default_color)
            for r in relations
            for m in (r.head, r.tail)
        },
    }


def _around(text: str, scope: Span, relation: Relation) -> str:
    """Return the text of a stretch, cut around the mentions if it is long: a Doc without sentences is one stretch."""
    places = [(span.start_char, span.end_char) for span in (scope, relation.head, relation.tail)]
    return "".join(segment.text for segment in excerpt(text, *places)).strip()


def _entities(doc: Doc, relations: Sequence[Relation], settings: Any, options: dict[str, Any]) -> str:
    """Return the text with its entities marked, and mentions that are no entities where they overlap none."""
    mentions = list(doc.ents)
    taken = {i for span in mentions for i in range(span.start, span.end)}
    for span in (m for r in relations for m in (r.head, r.tail)):
        if taken.isdisjoint(range(span.start, span.end)):
            mentions.append(span)
            taken.update(range(span.start, span.end))
    spans = [
        # displaCy puts the label into the markup as it is; `params` replaces it after the colour was looked up.
        {"start": s.start_char, "end": s.end_char, "label": s.label_, "params": {"label": escape(s.label_)}}
        for s in sorted(mentions, key=lambda span: span.start)
    ]
    renderer = EntityRenderer(options)
    renderer.direction = settings["direction"]
    return str(renderer.render_ents(doc.text, spans, None))


def _scopes(placed: Iterable[tuple[int, int, Relation]], max_sentences: int) -> list[tuple[int, int]]:
    """Return the stretches that get a picture: sentences, joined where a relation crosses their border.

    Args:
        placed: Relations with the numbers of their first and their last sentence.
        max_sentences: A relation over more sentences joins nothing.
    """
    joined: list[tuple[int, int]] = []
    for first, last in sorted((first, last) for first, last, _ in placed if last - first < max_sentences):
        if joined and first <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return joined
