"""Registers the extension attributes once, when the package is imported beside spaCy."""

from contextlib import suppress

from spacy_relx.errors import ExtensionError
from spacy_relx.relation import Relation, RelationAnswer, as_doc, merge_docs, register

__all__ = ["Relation", "RelationAnswer", "as_doc", "merge_docs"]

# `relations` is a common name. An import must not break a pipeline that never uses this package, so the conflict
# is reported where somebody asks for the component, whose `attr` setting is the way out.
with suppress(ExtensionError):
    register()
