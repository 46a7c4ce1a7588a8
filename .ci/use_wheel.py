"""Uses the installed package as a stranger would: no import of it, no source tree."""

import tempfile

import spacy

nlp = spacy.blank("en")
ruler = nlp.add_pipe("entity_ruler")
ruler.add_patterns([{"label": "PERSON", "pattern": "Ada Lovelace"}, {"label": "PERSON", "pattern": "Charles Babbage"}])
nlp.add_pipe("sentencizer")
config = {"labels": ["friend_of", "child_of"], "threshold": 0.0, "no_relation": None}
nlp.add_pipe("llama_relation_extractor", config=config)
doc = nlp("Ada Lovelace wrote to Charles Babbage.")
relations = [relation.to_dict() for relation in doc._.relations]
assert len(relations) == 2, relations

with tempfile.TemporaryDirectory() as folder:
    nlp.to_disk(folder)
    assert [r.to_dict() for r in spacy.load(folder)(doc.text)._.relations] == relations

import spacy_relx  # noqa: E402 - only to see that it is not the source tree
from spacy_relx import view  # noqa: E402 - it needs files that are not Python

assert "cytoscape" in view.graph(doc)
assert "<svg" in view.render(doc)

assert "site-packages" in spacy_relx.__file__, spacy_relx.__file__
