"""Records through `nlp.pipe`: a result for each of them, in order, whatever happened to it."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from itertools import groupby
from typing import TYPE_CHECKING, Any

from spacy_relx._outputs import Result
from spacy_relx.errors import ConfigError, DeviceError, ExtensionError, ModelError, ServerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from spacy.language import Language
    from spacy.tokens import Doc

    from spacy_relx._inputs import Record

_FATAL = (ConfigError, DeviceError, ExtensionError, ModelError, ImportError, MemoryError)


def _is_fatal(error: Exception) -> bool:
    """Whether an error is about the pipeline, not about a document: every further one would fail in the same way."""
    if isinstance(error, ServerError):
        return error.for_all
    return isinstance(error, _FATAL)


def describe(where: str, error: Exception) -> str:
    """Say which component failed, and how."""
    return f"{where}: {type(error).__name__}: {error}"


def process(
    nlp: Language,
    records: Iterable[Record],
    *,
    batch_size: int = 64,
    n_process: int = 1,
    describe: Callable[[str, Exception], str] = describe,
) -> Iterator[Result]:
    """Send records through a pipeline and yield a result for each of them, in order.

    A document that fails never costs another one: whatever `nlp.pipe` does not give back is sent through alone.
    Records whose entities are annotated bypass the components that set entities.

    Args:
        nlp: The pipeline.
        records: The documents.
        batch_size: Documents that the pipeline takes at a time.
        n_process: Processes that work on them.
        describe: What is said of a document that failed, of the component's name and the error.
    """
    setters = [name for name in nlp.pipe_names if "doc.ents" in nlp.get_pipe_meta(name).assigns]
    for keeps_ents, group in groupby(records, key=lambda record: record.keeps_ents):
        with nlp.select_pipes(disable=setters if keeps_ents else []):
            yield from _Stream(nlp, group, describe).run(batch_size, n_process)


class _Stream:
    """One pass through `nlp.pipe`, and the records that it has taken but not yet given back."""

    def __init__(self, nlp: Language, records: Iterator[Record], describe: Callable[[str, Exception], str]) -> None:
        self.nlp, self.records, self.describe = nlp, records, describe
        self.pending: deque[tuple[int, Record]] = deque()
        self.failures = _Failures(describe)
        self.n_taken = 0
        self.exhausted = False
        self.broken_input: Exception | None = None

    def run(self, batch_size: int, n_process: int) -> Iterator[Result]:
        before = self.nlp.default_error_handler
        _set_error_handler(self.nlp, self.failures)
        try:
            while not self.exhausted:
                try:
                    for doc in self.nlp.pipe(self._take(), batch_size=batch_size, n_process=n_process):
                        while self.pending[0][0] != doc._context:
                            yield self._alone(*self.pending.popleft())
                        yield Result(self.pending.popleft()[1], doc)
                except Exception as error:
                    # A component without an error handler: the stream is lost. Its records are answered one by one,
                    # and a new stream takes the rest.
                    if _is_fatal(error) or (self.broken_input is None and not self.pending):
                        raise
                while self.pending:
                    yield self._alone(*self.pending.popleft())
            if self.broken_input is not None:
                raise self.broken_input
        finally:
            _set_error_handler(self.nlp, before)

    def _take(self) -> Iterator[Doc]:
        while True:
            try:
                record = next(self.records, None)
            except Exception as error:
                # Raised in here it would look like a failing component; the documents before it are still good.
                self.broken_input, record = error, None
            if record is None:
                self.exhausted = True
                return
            self.pending.append((self.n_taken, record))
            self.n_taken += 1
            if record.error is not None:
                continue
            try:
                doc = record.make_doc(self.nlp)
            except Exception as error:
                self.failures.messages[self.n_taken - 1] = self.describe("tokenizer", error)
                continue
            doc._context = self.n_taken - 1
            yield doc

    def _alone(self, number: int, record: Record) -> Result:
        if record.error is not None:
            return Result(record, None, record.error)
        if number not in self.failures.messages:
            try:
                doc = record.make_doc(self.nlp)
                doc._context = number
                doc = self.nlp(doc)
            except Exception as error:
                if _is_fatal(error):
                    raise
                self.failures.messages[number] = self.describe("pipeline", error)
        message = self.failures.messages.pop(number, None)
        return Result(record, None, message) if message else Result(record, doc)


def _set_error_handler(nlp: Language, handler: Any) -> None:
    """Do what `nlp.set_error_handler` does, past components that cannot hold one.

    The parser and the entity recogniser of spaCy 3.8.18 are such; `Language` asks only whether they have the method.
    """
    nlp.default_error_handler = handler
    for _, component in nlp.pipeline:
        if hasattr(component, "set_error_handler"):
            with suppress(AttributeError):
                component.set_error_handler(handler)


class _Failures:
    """An error handler that notes which document failed; spaCy then leaves it out of the stream and goes on."""

    def __init__(self, describe: Callable[[str, Exception], str]) -> None:
        self.messages: dict[int, str] = {}
        self.describe = describe

    def __call__(self, name: str | None, proc: Any, docs: list[Doc] | None, error: Exception) -> None:
        if _is_fatal(error):
            raise error
        # With several documents only one may be at fault; each of them is tried alone. A worker process notes nothing
        # that this process could see, with the same outcome.
        if docs is not None and len(docs) == 1:
            self.messages[docs[0]._context] = self.describe(name or "pipeline", error)
