"""The file that an evaluation writes as it goes, so that one that was stopped or killed can go on where it was.

`RUN.jsonl.part` has a line that says what it belongs to, then records, and after each batch of documents the counts at
that moment. Whatever stands behind the last counts is of a batch that was not finished, and is asked about again.
Owns that file; what the finished one looks like is in `records`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import spacy

import spacy_relx
from spacy_relx._json import parse_json
from spacy_relx._progress import lock_output
from spacy_relx.evaluation.records import header_line, record_line

if TYPE_CHECKING:
    from spacy.language import Language

    from spacy_relx.evaluation.finished import PromptRecord, PromptRun
    from spacy_relx.evaluation.records import PairRecord, RunInfo
    from spacy_relx.pipeline import RelationExtractor

_COUNTS = b'{"counts":'


def identity(
    info: RunInfo | PromptRun, nlp: Language, component: RelationExtractor, files: dict[str, Path | None], **more: Any
) -> dict[str, Any]:
    """Return everything that a run's answers depend on; the model is loaded for it.

    Args:
        info: The run, before anything was asked.
        nlp: The pipeline.
        component: The relation extractor in it.
        files: What is read, by what it is for; only the content counts.
        **more: Further values.
    """
    from spacy_relx.shim import engine_shim

    loaded = engine_shim(component.model).engine.loaded
    about = asdict(info)
    for name in ("source", "settings", "counts"):
        about.pop(name, None)
    return {
        **about,
        **info.settings,
        "weights": getattr(loaded, "fingerprint", None),
        "pipeline version": nlp.meta.get("version"),
        "pipeline config": hashlib.sha256(nlp.config.to_str().encode()).hexdigest(),
        "spacy": spacy.__version__,
        "spacy-relx": spacy_relx.__version__,
        **{f"content of {what}": _digest(path) for what, path in files.items()},
        **more,
    }


class PartialRun:
    """The part of a run that is done.

    Args:
        out: The file that the complete run will be in. It is not touched before `finish`.
        identity: What the run depends on; a part that was made with something else is thrown away.

    Attributes:
        path: Where the part is: `out` with `.part` behind its name.
        counts: `RunInfo.counts` at the last `checkpoint`, of an earlier run too; empty if nothing is done.
        discarded: What was found in the way of going on with a part that was there; "" if nothing was.

    Raises:
        DataError: If another run is writing the same file.
    """

    def __init__(self, out: Path, identity: dict[str, Any]) -> None:
        self.out, self.path = out, out.with_name(f"{out.name}.part")
        self.counts: dict[str, Any] = {}
        self.discarded = ""
        self._lock = lock_output(out, str(out))
        # Through JSON, so that tuples and lists are equal.
        wanted = json.loads(json.dumps(identity, default=str))
        end = self._read(wanted) if self.path.exists() else 0
        self._file = self.path.open("r+b" if end else "w+b")
        self._file.truncate(end)
        self._file.seek(end)
        if not end:
            self._file.write(json.dumps({"part_of": wanted}, ensure_ascii=False).encode() + b"\n")

    @property
    def n_docs(self) -> int:
        """Documents that are done."""
        return int(self.counts.get("n_docs", 0))

    def write(self, record: PairRecord | PromptRecord) -> None:
        """Append a record; it counts from the next `checkpoint` on."""
        self._file.write(record_line(record).encode())

    def checkpoint(self, counts: dict[str, Any]) -> None:
        """Say that all records of the documents that `counts` knows are written."""
        self.counts = dict(counts)
        self._file.write(json.dumps({"counts": counts}, ensure_ascii=False).encode() + b"\n")
        self._file.flush()

    def finish(self, info: RunInfo | PromptRun) -> None:
        """Make the complete file in one step and remove the part."""
        scratch = self.out.with_name(f"{self.out.name}.tmp")
        self._file.seek(0)
        next(self._file)
        with scratch.open("wb") as complete:
            complete.write(header_line(info).encode())
            complete.writelines(line for line in self._file if not line.startswith(_COUNTS))
        scratch.replace(self.out)
        self._file.close()
        self.path.unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()
        # Unlinked while it is held: nobody waits for it, as every run gives up at once when it is taken.
        Path(self._lock.lock_file).unlink(missing_ok=True)
        self._lock.release()

    def _read(self, wanted: dict[str, Any]) -> int:
        """Take the counts of the part that is there; return where it ends, or 0 if it is of no use."""
        with self.path.open("rb") as file:
            first = file.readline()
            try:
                found = parse_json(first)["part_of"]
                changed = sorted(key for key in {*found, *wanted} if found.get(key) != wanted.get(key))
            except (ValueError, KeyError, TypeError):
                self.discarded = "it is not the part of an evaluation"
                return 0
            if changed:
                self.discarded = f"it was begun with another {', another '.join(changed)}"
                return 0
            end = place = len(first)
            for line in file:
                place += len(line)
                if line.startswith(_COUNTS) and line.endswith(b"\n"):
                    self.counts, end = parse_json(line)["counts"], place
        return end


def _digest(path: Path | None) -> str | None:
    if path is None:
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
