"""Pictures of relations, as HTML that needs no network: `render` returns one, `save` writes it as a page."""

from spacy_relx.view.documents import render, save
from spacy_relx.view.html import Html, Page

__all__ = ["Html", "Page", "render", "save"]
