"""From news to a graph: who leads, founded and bought what, with the packaged labels."""

from pathlib import Path

import spacy

from spacy_relx import view

TEXTS = Path(__file__).with_name("texts") / "news.txt"

nlp = spacy.load("en_core_web_sm")
nlp.add_pipe("llama_relation_extractor")
docs = list(nlp.pipe(TEXTS.read_text(encoding="utf8").split("\n\n")))

for doc in docs:
    for rel in doc._.relations:
        print(f"{rel.score:.2f}  {rel.head.text} | {rel.label} | {rel.tail.text}")
print(view.save_graph(docs, "news.html", title="News"))
