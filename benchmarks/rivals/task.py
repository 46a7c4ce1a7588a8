"""What a rival is given to do: prompts, labels and documents, as JSON holds them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from spacy_relx.benchmark.documents import Document
    from spacy_relx.engine.loading import LoadedModel
    from spacy_relx.engine.types import LabelIds, Question


def make_task(
    loaded: LoadedModel,
    folder: Path,
    gguf: Path | None,
    documents: Sequence[Document],
    work: Sequence[Sequence[Question]],
    labels: LabelIds,
    *,
    n_documents: int,
    threads: int,
    batch: int,
) -> dict[str, Any]:
    """Describe the work of a rival.

    Args:
        loaded: The model.
        folder: Its files.
        gguf: The same model as a GGUF file.
        documents: All documents.
        work: The questions of each.
        labels: The labels, the negative last.
        n_documents: Documents that a rival is given, from those of middle size on.
        threads: Threads it may use.
        batch: Prompts or sentences at a time, where it takes several.
    """
    order = sorted((i for i in range(len(work)) if work[i]), key=lambda i: len(work[i]))
    chosen = order[len(order) // 2 :][:n_documents]
    tokenizer: Any = loaded.tokenizer
    names = [tokenizer.decode(list(ids)) for ids in labels.sequences]
    return {
        "model": str(folder),
        "gguf": None if gguf is None else str(gguf),
        "dtype": str(loaded.dtype).removeprefix("torch."),
        "device": loaded.device.type,
        "threads": threads,
        "batch": batch,
        "prompts": [list(question.prompt.ids) for i in chosen for question in work[i]],
        "labels": names,
        "label_tokens": [len(ids) for ids in labels.sequences],
        "terminal": labels.terminal,
        "max_new_tokens": max(map(len, labels.sequences)) + 1,
        "documents": [
            {
                "words": list(documents[i].words),
                "mentions": [[m.start, m.end, m.label] for m in documents[i].mentions],
                "pairs": len(work[i]),
            }
            for i in chosen
        ],
        # Documents a second compare only over the same documents, so these are all.
        "document_tokens": [len(tokenizer(documents[i].text, add_special_tokens=False)["input_ids"]) for i in order],
    }
