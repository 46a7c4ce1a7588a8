"""A distributed run: the plan, what each process does with a block, and the end of it. Knows no Ray."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from spacy_relx._inputs import Source
from spacy_relx._progress import only_run
from spacy_relx._stream import process
from spacy_relx.corpus import Summary, identity_of
from spacy_relx.distributed.blocks import SUFFIXES, Block, plan, read
from spacy_relx.distributed.parts import Form, Parts, prepare
from spacy_relx.errors import ConfigError, DataError
from spacy_relx.evaluation.asked import find_component

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from spacy.language import Language

    #: Makes the pipeline in the process that uses it.
    MakePipeline: TypeAlias = Callable[[], Language]
    #: Lets some worker do each block, in any order, and tells what came of it.
    RunBlocks: TypeAlias = Callable[["Job", list[Block]], Iterable["Report"]]


#: Times that a block is begun in one run. Ray replaces every dead process: without end, if a document kills them all.
MAX_TRIES = 5


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker has to know; it travels to other machines.

    Attributes:
        make_pipeline: Makes the pipeline.
        source: How the input is read.
        parts: Where results go.
        batch_size: Documents that the pipeline takes at a time.
    """

    make_pipeline: MakePipeline
    source: Source
    parts: Parts
    batch_size: int


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a block.

    Attributes:
        number: The block.
        n_docs: Its documents.
        n_failed: How many of them failed.
        seconds: How long it took.
    """

    number: int
    n_docs: int
    n_failed: int
    seconds: float


class Worker:
    """One process of a run, with a pipeline of its own.

    Args:
        job: What to do.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self._nlp = job.make_pipeline()

    def __call__(self, block: Block) -> Report:
        """Annotate a block and write it, unless it is written already, or too many processes have died of it."""
        start, parts = time.monotonic(), self.job.parts
        if parts.is_done(block.number):  # by a process that died before it could tell
            return Report(block.number, block.n_docs, parts.n_failed(block.number), 0.0)
        if parts.begin(block.number) > MAX_TRIES:
            return Report(block.number, 0, 0, 0.0)  # the end of the run tells that it is missing
        records = read(block, self.job.source, self._nlp.vocab)
        n_failed = parts.write(block, process(self._nlp, records, batch_size=self.job.batch_size))
        return Report(block.number, block.n_docs, n_failed, time.monotonic() - start)


def in_this_process(job: Job, blocks: list[Block]) -> Iterator[Report]:
    """Do all blocks here, one after another."""
    worker = Worker(job)
    for block in blocks:
        yield worker(block)


def annotate_blocks(
    make_pipeline: MakePipeline,
    source: str | Path,
    output: str | Path,
    run_blocks: RunBlocks = in_this_process,
    *,
    form: Form = "jsonl",
    text_key: str = "text",
    block_size: int = 1000,
    batch_size: int = 64,
    resume: bool = True,
    overwrite: bool = False,
    options: dict[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Summary:
    """Annotate every document of a corpus, block by block.

    Args:
        make_pipeline: Makes the pipeline, with the component in it; called here, and in every worker. Nothing is loaded
            here.
        source: A .parquet, .jsonl or .spacy file, or a folder of such files.
        output: A folder; every block has a file in it.
        run_blocks: Who does the work.
        form: "jsonl" or "parquet".
        text_key: The key, or column, of the text.
        block_size: Most documents of a block: what a worker that dies has to do again.
        batch_size: Documents that a pipeline takes at a time.
        resume: Whether to go on with what an earlier run of the same has written.
        overwrite: Whether to start anew where there is an output.
        options: Further settings that shaped the results; a run with others does not continue the output.
        progress: Called with the documents written and failed so far.

    Raises:
        DataError: If the input cannot be read, or the output cannot be continued.
        ConfigError: If a setting cannot be used.
    """
    if form not in ("jsonl", "parquet"):
        raise ConfigError(f"form is {form!r}. Expected jsonl or parquet.")
    if block_size < 1 or batch_size < 1:
        raise ConfigError(f"block_size is {block_size}, batch_size {batch_size}. Expected at least 1 of each.")
    given = Source(str(Path(source).resolve()), text_key=text_key, suffixes=SUFFIXES)
    folder = Path(output).resolve()
    taken = Path(given.path)
    if folder == taken or taken in folder.parents:
        raise DataError(f"The output {str(output)!r} is in the input {str(source)!r}. Choose another place for it.")
    if form == "parquet" or any(path.suffix == ".parquet" for _, path in given.files()):
        _check_pyarrow()
    blocks = plan(given, block_size)
    nlp = make_pipeline()
    identity = {
        "input": given.fingerprint(),
        "options": {**identity_of(nlp, given), "block_size": block_size, "form": form, **(options or {})},
    }
    run = hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()[:16]
    parts = Parts(folder, form, find_component(nlp).settings.attr, run)
    with only_run(folder, str(output)):
        prepare(parts, identity, blocks, resume=resume, overwrite=overwrite)
        job = Job(make_pipeline, given, parts, batch_size)
        return _run(job, blocks, run_blocks, progress or (lambda n_done, n_failed: None))


def _check_pyarrow() -> None:
    try:
        import pyarrow.parquet  # noqa: F401
    except ModuleNotFoundError as error:
        raise ConfigError("Parquet needs pyarrow. Install it with `pip install 'spacy-relx[ray]'`.") from error


def _run(job: Job, blocks: list[Block], run_blocks: RunBlocks, progress: Callable[[int, int], None]) -> Summary:
    parts = job.parts
    done = parts.done(blocks)
    missing = [block for block in blocks if block.number not in done]
    n_resumed = n_done = sum(block.n_docs for block in blocks if block.number in done)
    n_failed = sum(parts.n_failed(number) for number in done)
    progress(n_done, n_failed)
    for report in run_blocks(job, missing) if missing else ():
        n_done, n_failed = n_done + report.n_docs, n_failed + report.n_failed
        progress(n_done, n_failed)
    done = parts.done(blocks)
    lost = [block for block in blocks if block.number not in done]
    if lost:
        raise DataError(
            f"{len(lost)} of {len(blocks)} blocks are not written. The first is block {lost[0].number}, "
            f"{lost[0].n_docs} documents of {lost[0].name!r} from number {lost[0].first} on. A block is given up when "
            f"{MAX_TRIES} processes have died of it, of too little memory, say. Run again to go on."
        )
    return Summary(n_done, n_resumed, n_failed, None)
