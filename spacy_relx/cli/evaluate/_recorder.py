"""Writes a run as its answers come, shows how far it is, and says how one that was stopped goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spacy_relx.cli._common import stderr
from spacy_relx.cli._progress import progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from spacy_relx.evaluation.finished import PromptRecord, PromptRun
    from spacy_relx.evaluation.partial import PartialRun
    from spacy_relx.evaluation.records import PairRecord, RunInfo


class Recorder:
    """Writes one run.

    Args:
        out: The file of the complete run.
        quiet: Whether to show nothing but what is wrong.
        what: What is counted, for messages.
    """

    def __init__(self, out: Path, quiet: bool, what: str = "documents") -> None:
        self._out, self._quiet, self._what = out, quiet, what
        self._part: PartialRun | None = None
        self._counts: dict[str, Any] = {}
        self._tell: Callable[[int], None] = lambda done: None

    def batch_done(self, n_docs: int) -> None:
        """Keep what was answered up to here; for the run to call while `write` goes through its records."""
        assert self._part is not None
        self._part.checkpoint(self._counts)
        self._tell(n_docs)

    def write(
        self,
        info: RunInfo | PromptRun,
        stream: Iterable[PairRecord | PromptRecord],
        identity: dict[str, Any],
        n_docs: int,
    ) -> None:
        """Go through the records of a run and write them, after those of an earlier run with the same identity.

        Args:
            info: The run; its counts become those of the earlier run before the first record is asked for.
            stream: Its records.
            identity: What its answers depend on.
            n_docs: How many documents there are, for the progress bar.
        """
        from spacy_relx.evaluation.partial import PartialRun

        with PartialRun(self._out, identity) as part:
            self._part, self._counts = part, info.counts
            if part.discarded:
                stderr().print(f"{part.path} is not continued: {part.discarded}. Starting anew.")
            elif part.n_docs and not self._quiet:
                stderr().print(f"Going on after the {part.n_docs} {self._what} in {part.path}.")
            info.counts.update(part.counts)
            try:
                with progress("Asking", self._what, lambda: n_docs, self._quiet) as self._tell:
                    self._tell(part.n_docs)
                    for record in stream:
                        part.write(record)
            except (Exception, KeyboardInterrupt):
                if part.n_docs:
                    stderr().print(
                        f"{part.n_docs} {self._what} are in {part.path}; the same command goes on from there."
                    )
                raise
            part.finish(info)
