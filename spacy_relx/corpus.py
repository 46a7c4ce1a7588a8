"""Annotating a corpus: documents stream from an input through a pipeline to an output, and a cut-off run goes on.

Owns a run from its beginning or continuation to its end. The formats are in `_inputs.py` and `_outputs.py`, the way
through the pipeline in `_stream.py`; nothing here knows a command line or a model.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import spacy

import spacy_relx
from spacy_relx._inputs import STDIN, Record, Source
from spacy_relx._outputs import (
    STDOUT,
    DocBinWriter,
    JsonlWriter,
    Result,
    StdoutWriter,
    Writer,
)
from spacy_relx._progress import ErrorLog, Progress, error_path, only_run
from spacy_relx._stream import process
from spacy_relx.errors import DataError
from spacy_relx.relation import DEFAULT_ATTR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from spacy.language import Language

__all__ = ["OnError", "Record", "Result", "Source", "Summary", "annotate_corpus", "process"]

OnError: TypeAlias = Literal["log", "raise"]


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run did.

    Attributes:
        n_docs: Documents in the output.
        n_resumed: How many of them an earlier run had written.
        n_failed: How many of them failed, in this run or an earlier one.
        errors: The file that lists the failures, if there is one.
    """

    n_docs: int
    n_resumed: int
    n_failed: int
    errors: Path | None


def annotate_corpus(
    nlp: Language,
    source: Source,
    output: str | Path,
    *,
    attr: str = DEFAULT_ATTR,
    batch_size: int = 64,
    n_process: int = 1,
    resume: bool = True,
    overwrite: bool = False,
    on_error: OnError = "log",
    shard_size: int = 500,
    options: dict[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Summary:
    """Annotate every document of `source` and write the results to `output`, in order.

    Args:
        nlp: The pipeline.
        source: What to read.
        output: A .jsonl or .spacy file, or "-" for JSON Lines on standard output.
        attr: The extension that holds the relations.
        batch_size: Documents that `nlp.pipe` takes at a time.
        n_process: Worker processes.
        resume: Whether to go on with an output that an earlier run of the same input and pipeline has begun.
        overwrite: Whether to start anew where there is an output.
        on_error: What a failing document does: `log` lists it in `OUTPUT.errors.jsonl` and writes it without
            annotations; `raise` stops the run in front of it.
        shard_size: Documents that a run to a .spacy file may lose when it is killed.
        options: Further settings that shaped the results; a run with others does not continue the output.
        progress: Called with the documents written and failed so far.

    Raises:
        DataError: If the input cannot be read, the output cannot be continued, or a document failed and `on_error`
            is `raise`.
    """
    run = _Run(nlp, source, batch_size, n_process, on_error, progress or (lambda n_done, n_failed: None))
    if str(output) == STDOUT:
        return run(StdoutWriter(attr=attr), ErrorLog(None, 0))
    path = Path(output)
    _check_output(path, source)
    identity = {"input": source.fingerprint(), "options": {**identity_of(nlp, source), **(options or {})}}
    with only_run(path, str(output)):
        state = Progress(path, identity, resume=resume, overwrite=overwrite)
        if state.is_complete:
            n_docs = state.state["n_docs"]
            log = ErrorLog(error_path(path), n_docs)
            return Summary(n_docs, n_docs, log.n_failed, log.listing)
        writer: Writer
        if path.suffix == ".jsonl":
            writer = JsonlWriter(path, state, attr=attr)
        else:
            writer = DocBinWriter(path, state, nlp.vocab, shard_size=shard_size)
        return run(writer, ErrorLog(error_path(path), writer.n_done))


@dataclass(frozen=True, slots=True)
class _Run:
    nlp: Language
    source: Source
    batch_size: int
    n_process: int
    on_error: OnError
    progress: Callable[[int, int], None]

    def __call__(self, writer: Writer, log: ErrorLog) -> Summary:
        """Process what the writer does not have yet."""
        index, complete = writer.n_done, False
        try:
            self.progress(index, log.n_failed)
            records = _skip(self.source.read(self.nlp.vocab), writer)
            for result in process(self.nlp, records, batch_size=self.batch_size, n_process=self.n_process):
                self._write(index, result, writer, log)
                index += 1
                self.progress(index, log.n_failed)
            complete = True
        finally:
            writer.close(complete=complete)
        return Summary(index, writer.n_done, log.n_failed, log.listing)

    def _write(self, index: int, result: Result, writer: Writer, log: ErrorLog) -> None:
        if result.error is None:
            try:
                writer.write(result)
                return
            except (TypeError, ValueError, OverflowError) as error:  # user_data that cannot be serialised
                result = Result(result.record, None, f"cannot be written: {type(error).__name__}: {error}")
        if self.on_error == "raise":
            raise DataError(
                f"Document {index} ({result.record.id!r}) failed: {result.error}. What came before is kept; the same "
                "command goes on from here."
            )
        # First the log: it is cut back to the output when a run goes on, never the other way round.
        log.add(index, result.record.id, result.error or "")
        writer.write(result)


def _check_output(path: Path, source: Source) -> None:
    if path.suffix not in (".jsonl", ".spacy"):
        raise DataError(f"The output {str(path)!r} is of no known kind. Expected a .jsonl or .spacy file, or -.")
    if source.path != STDIN:
        taken = Path(source.path).resolve()
        if path.resolve() == taken or taken in path.resolve().parents:
            raise DataError(f"The output {str(path)!r} is in the input {source.path!r}. Choose another place for it.")


def _skip(records: Iterator[Record], writer: Writer) -> Iterator[Record]:
    """Pass over what an earlier run has written, and check that it is the same text."""
    last = None
    for n_skipped in range(writer.n_done):
        last = next(records, None)
        if last is None:
            raise DataError(
                f"The output has {writer.n_done} documents, but the input only {n_skipped}. "
                "Start anew with --overwrite."
            )
    written = writer.last_text()
    if last is not None and written is not None and written != last.text and not last.error:
        raise DataError(
            f"Document {writer.n_done - 1} of the input ({last.id!r}) is not the last document of the output. "
            "The input has changed; start anew with --overwrite."
        )
    return records


def identity_of(nlp: Language, source: Source) -> dict[str, Any]:
    """Return what shapes the results of a run beside the input: the pipeline, how it is read, versions."""
    return {
        "text_key": source.text_key,
        "per_line": source.per_line,
        "pipeline": f"{nlp.meta.get('lang')}_{nlp.meta.get('name')} {nlp.meta.get('version')}",
        "pipeline_config": hashlib.sha256(nlp.config.to_str().encode()).hexdigest(),
        "spacy": spacy.__version__,
        "spacy_relx": spacy_relx.__version__,
    }
