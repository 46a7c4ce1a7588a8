"""Reads a text of several paragraphs, prints the relations it finds, and draws them."""

import sys
from pathlib import Path

import spacy
from rich.console import Console
from rich.table import Table
from spacy.util import is_package

from spacy_relx import view
from spacy_relx.cli._pipeline import entity_pipeline

TEXT = Path(__file__).with_name("demo.txt")


def main(picture: Path) -> None:
    """Print a table of relations, write a picture of them to `picture`, and a graph beside it."""
    console = Console()
    name = entity_pipeline()
    if not is_package(name):
        sys.exit("No entity recogniser is installed. Run `make demo`, or `python -m spacy download en_core_web_sm`.")
    nlp = spacy.load(name)
    extractor = nlp.add_pipe("llama_relation_extractor")
    paragraphs = TEXT.read_text(encoding="utf-8").split("\n\n")
    docs = list(nlp.pipe(paragraph.replace("\n", " ").strip() for paragraph in paragraphs))

    table = Table(title=f"Relations in {TEXT.name}", title_justify="left")
    for column in ("head", "relation", "tail"):
        table.add_column(column)
    table.add_column("score", justify="right")
    found = [relation for doc in docs for relation in doc._.relations]
    for relation in sorted(found, key=lambda relation: -relation.score):
        table.add_row(relation.head.text, relation.label, relation.tail.text, f"{relation.score:.2f}")
    console.print(table)
    work = extractor.model.shims[0].engine.work
    console.print(
        f"{len(found)} relations among {work.n_prompts} candidate pairs. "
        f"The prompts have {work.n_prompt_tokens:,} tokens; {work.n_tokens:,} were computed."
    )
    if extractor.model.shims[0].spec.adapter is None:
        console.print("The bare base is not trained for relations, so most of these are guesses.")
    picture.parent.mkdir(parents=True, exist_ok=True)
    view.save(docs, picture)
    graph = view.save_graph(docs, picture.with_name("graph.html"), title=TEXT.name)
    console.print(f"Picture: {picture}, and as one graph: {graph}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "relations.html"))
