"""spacy-llm's REL task (`spacy.REL.v1`) on the same transformers model: one prompt a document, JSON lines out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

ABOUT = "spacy-llm's REL task on the same model: one prompt a document, the answer is written out as JSON lines"
REQUIREMENTS = ["spacy-llm==0.7.4"]

#: Most tokens of one document's answer. A line of the wanted JSON has about 25.
_NEW_TOKENS = 128


@dataclass
class Rival:
    """The pipeline and its documents."""

    nlp: Any
    docs: list[Any]
    n_units: int
    model: Any
    unit: str = "pairs"
    facts: dict[str, Any] = field(default_factory=dict)

    def run(self) -> None:
        """Annotate fresh copies: spacy-llm keeps answers, and a Doc that it has seen costs nothing."""
        self.model.n_tokens = 0
        for _ in self.nlp.pipe([doc.copy() for doc in self.docs]):
            pass


class LocalModel:
    """What spacy-llm's own classes for Hugging Face models do, for a model that is none of their fixed names."""

    def __init__(self, folder: str, dtype: str, device: str) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype), local_files_only=True)
        self._model = model.to(device).eval()
        self.n_tokens = 0

    def __call__(self, prompts: Any) -> list[list[str]]:
        """Answer the prompts of some documents, one at a time, as `spacy_llm.models.hf.mistral` does."""
        return [[self._answer(prompt) for prompt in of_document] for of_document in prompts]

    def _answer(self, prompt: str) -> str:
        import torch

        turn = [{"role": "user", "content": prompt}]
        given = self._tokenizer.apply_chat_template(
            turn, add_generation_prompt=True, return_tensors="pt", return_dict=True
        ).to(self._model.device)
        n_given = given["input_ids"].shape[1]
        with torch.inference_mode():
            output = self._model.generate(
                **given,
                max_new_tokens=_NEW_TOKENS,
                do_sample=False,
                pad_token_id=self._tokenizer.pad_token_id or 0,
            )
        self.n_tokens += output.shape[1] - n_given
        return str(self._tokenizer.decode(output[0, n_given:], skip_special_tokens=True))


def prepare(task: dict[str, Any]) -> Rival:
    """Build the pipeline that spacy-llm's documentation describes, on our model and our documents."""
    import spacy
    import spacy_llm
    import torch
    from spacy.tokens import Doc, Span
    from spacy_llm.registry import registry

    torch.set_num_threads(task["threads"])
    model = LocalModel(task["model"], task["dtype"], task["device"])

    @registry.llm_models("benchmark.Local.v1")  # type: ignore[untyped-decorator]
    def _local() -> LocalModel:
        return model

    nlp = spacy.blank("en")
    # The negative is no label there: a pair that is left out is one.
    labels = [label for label in task["labels"] if label != "no_relation"]
    nlp.add_pipe(
        "llm",
        config={
            "task": {"@llm_tasks": "spacy.REL.v1", "labels": labels},
            "model": {"@llm_models": "benchmark.Local.v1"},
            # One batch would be kept and answered from memory in the second round.
            "cache": {"@llm_misc": "spacy.BatchCache.v1", "path": None, "batch_size": 1, "max_batches_in_mem": 0},
            "validate_types": False,
        },
    )
    docs = []
    for document in task["documents"]:
        doc = Doc(nlp.vocab, words=document["words"])
        doc.ents = [Span(doc, start, end, label) for start, end, label in document["mentions"]]
        docs.append(doc)
    return Rival(
        nlp,
        docs,
        sum(document["pairs"] for document in task["documents"]),
        model,
        facts={
            "about": ABOUT,
            "documents": len(docs),
            "max_new_tokens": _NEW_TOKENS,
            "versions": {"spacy-llm": getattr(spacy_llm, "__version__", "0.7.4"), "torch": torch.__version__},
        },
    )
