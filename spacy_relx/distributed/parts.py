"""The output: a folder with a file for each block, and a manifest that says what they belong to."""

from __future__ import annotations

import json
import os
import re
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from spacy_relx._json import parse_json
from spacy_relx._outputs import to_line
from spacy_relx._progress import encode_line, replace_file
from spacy_relx.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from spacy_relx._outputs import Result
    from spacy_relx.distributed.blocks import Block

Form = Literal["jsonl", "parquet"]

MANIFEST = "manifest.json"
_SCRATCH = ".tmp-"
#: A file that a run writes. Other programs begin names with part-, too, and theirs stay.
_PART = re.compile(r"part-\d{6,}(\.parquet|(\.errors)?\.jsonl)")


@dataclass(frozen=True, slots=True)
class Parts:
    """Where results are written, and how.

    Attributes:
        folder: The folder.
        form: "jsonl": lines as `annotate` writes them, with `provenance`; "parquet": the same as columns.
        attr: The extension that holds the relations.
        run: What the rows name as their run: a digest of all that shaped the results.
    """

    folder: Path
    form: Form
    attr: str
    run: str

    def path(self, number: int) -> Path:
        """The file of a block."""
        return self.folder / f"part-{number:06}.{self.form}"

    def error_path(self, number: int) -> Path:
        """The file that lists the documents of a block that failed, if any did."""
        return self.folder / f"part-{number:06}.errors.jsonl"

    def is_done(self, number: int) -> bool:
        """Whether a block is written."""
        return self.path(number).exists()

    def done(self, blocks: Sequence[Block]) -> set[int]:
        """Which blocks are written. Lists the folder: on a shared disk, that is newer than asking for single files."""
        names = {path.name for path in self.folder.iterdir()}
        return {block.number for block in blocks if self.path(block.number).name in names}

    def begin(self, number: int) -> int:
        """Note that a block is begun, and tell how often that has happened in this run."""
        tries = self._tries(number)
        with tries.open("ab") as file:
            file.write(b".")
        return tries.stat().st_size

    def n_failed(self, number: int) -> int:
        """How many documents of a block failed."""
        path = self.error_path(number)
        return len(path.read_bytes().splitlines()) if path.exists() else 0

    def write(self, block: Block, results: Iterable[Result]) -> int:
        """Write the results of a block, in one step; return how many documents failed."""
        lines: list[bytes] = []
        errors: list[bytes] = []
        for result in results:
            line = json.loads(_line(result, self.attr))
            if "error" in line:
                errors.append(encode_line({"id": line["id"], "error": line["error"]}))
            line["provenance"] = {"file": block.name, "block": block.number, "run": self.run}
            lines.append(encode_line(line))
        if len(lines) != block.n_docs:
            raise DataError(
                f"Block {block.number} of {block.path!r} has {len(lines)} documents, and had {block.n_docs} when the "
                "run was planned. The input has changed; start anew with --overwrite."
            )
        # The errors first: when the block's own file is there, the block is done.
        if errors:
            self._publish(self.error_path(block.number), b"".join(errors))
        else:  # an attempt that died may have left some
            self.error_path(block.number).unlink(missing_ok=True)
        data = b"".join(lines) if self.form == "jsonl" else _table(lines)
        self._publish(self.path(block.number), data)
        self._tries(block.number).unlink(missing_ok=True)
        return len(errors)

    def _tries(self, number: int) -> Path:
        return self.folder / f"{_SCRATCH}tries-{number:06}"

    def _publish(self, path: Path, data: bytes) -> None:
        """Give data a name once they are on the disk. Two that write one block write the same, and either may win."""
        scratch = self.folder / f"{_SCRATCH}{uuid.uuid4().hex}"
        with scratch.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)


def prepare(parts: Parts, identity: dict[str, Any], blocks: Sequence[Block], *, resume: bool, overwrite: bool) -> None:
    """Make the output folder ready for a run: empty, or with what an earlier run of the same has written.

    Raises:
        DataError: If there is an output that this run must not go on with.
    """
    folder, manifest = parts.folder, parts.folder / MANIFEST
    wanted = {**identity, "run": parts.run, "n_blocks": len(blocks), "n_docs": sum(block.n_docs for block in blocks)}
    wanted = json.loads(json.dumps(wanted))
    if folder.exists() and not folder.is_dir():
        raise DataError(f"The output {str(folder)!r} is a file. Expected a folder: every block has a file of its own.")
    folder.mkdir(parents=True, exist_ok=True)
    begun = _read_manifest(manifest) if manifest.exists() else None
    ours = [path for path in folder.iterdir() if path.name == MANIFEST or path.name.startswith(_SCRATCH)]
    ours += [path for path in folder.iterdir() if _PART.fullmatch(path.name)]
    if overwrite:
        for path in ours:
            path.unlink()
    elif begun is not None:
        changed = [key for key in wanted if begun.get(key) != wanted[key]]
        if not resume or changed:
            why = f"it was begun with another {', '.join(changed)}" if changed else "--no-resume was given"
            raise DataError(
                f"The output {str(folder)!r} is not continued: {why}. Choose another, or replace it with --overwrite."
            )
    elif ours:
        raise DataError(f"The output {str(folder)!r} has parts and no {MANIFEST}. Choose another, or use --overwrite.")
    for path in folder.glob(f"{_SCRATCH}*"):  # of a process that was killed
        path.unlink(missing_ok=True)
    replace_file(manifest, json.dumps(wanted, indent=1).encode())


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        found = parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{str(path)!r} cannot be read: {error}. Choose another output, or take it away.") from error
    if not isinstance(found, dict) or not {"input", "options", "run"} <= set(found):
        raise DataError(f"{str(path)!r} is not of annotate. Choose another output, or take it away.")
    return found


def _line(result: Result, attr: str) -> bytes:
    try:
        return to_line(result, attr)
    except (TypeError, ValueError, OverflowError) as error:  # a value that JSON cannot hold
        return to_line(result._replace(doc=None, error=f"cannot be written: {type(error).__name__}: {error}"), attr)


def _table(lines: list[bytes]) -> bytes:
    """The lines as one Parquet file; `meta`, and an `id` that is no string, as JSON."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    mention = [("start", pa.int32()), ("end", pa.int32()), ("start_char", pa.int32()), ("end_char", pa.int32())]
    mention += [("label", pa.string()), ("text", pa.string())]
    relation = [("head", pa.struct(mention)), ("tail", pa.struct(mention)), ("label", pa.string())]
    relation += [("score", pa.float64()), ("inverse_label", pa.string())]
    provenance = [("file", pa.string()), ("block", pa.int64()), ("run", pa.string())]
    schema = pa.schema(
        [
            ("id", pa.string()),
            ("text", pa.string()),
            ("ents", pa.list_(pa.struct([*mention, ("kb_id", pa.string())]))),
            ("relations", pa.list_(pa.struct(relation))),
            ("meta", pa.string()),
            ("error", pa.string()),
            ("provenance", pa.struct(provenance)),
        ]
    )
    rows = [_encodable(json.loads(line)) for line in lines]
    for row in rows:
        row["id"] = row["id"] if isinstance(row["id"], str) else json.dumps(row["id"])
        row["meta"] = json.dumps(row["meta"], ensure_ascii=False)
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema), sink, compression="zstd")
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _encodable(value: Any) -> Any:
    """A JSON value without lone surrogates, which fit into no column."""
    if isinstance(value, str):
        return value.encode("utf8", "replace").decode()
    if isinstance(value, dict):
        return {_encodable(key): _encodable(item) for key, item in value.items()}
    return [_encodable(item) for item in value] if isinstance(value, list) else value
