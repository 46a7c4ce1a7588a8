"""Pictures of relations, as HTML that needs no network.

`render` shows documents with their relations as arcs, `graph` what all of them say as one interactive graph. `save` and
`save_graph` write them as pages.
"""

from spacy_relx.view.documents import render, save
from spacy_relx.view.graph_page import graph, save_graph
from spacy_relx.view.html import Html, Page

__all__ = ["Html", "Page", "graph", "render", "save", "save_graph"]
