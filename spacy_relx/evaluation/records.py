"""What was asked and what was answered: one record a pair, and how records are kept in a file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

from spacy_relx._json import parse_json
from spacy_relx.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from spacy_relx.evaluation.finished import PromptRecord, PromptRun

#: Which pairs were asked about: the annotated ones (the published protocol), all ordered pairs of gold entities, or all
#: ordered pairs of predicted entities. Scores of different protocols do not belong in one table.
Protocol = Literal["given", "gold_entities", "predicted_entities"]
PROTOCOLS: tuple[Protocol, ...] = ("given", "gold_entities", "predicted_entities")

#: What may stand in one table: runs of one protocol, those that asked about the given pairs in the published way apart.
Way = Literal["published", "given", "gold_entities", "predicted_entities"]
#: The key of `RunInfo.settings` that says how the published way was filled in.
PUBLISHED: Literal["published"] = "published"

#: How a sentence occurs in training data; "" for not at all.
Seen = Literal["", "exact", "alike"]


@dataclass(frozen=True, slots=True)
class MentionRecord:
    """A mention in the text of its record; character offsets, the end exclusive."""

    start: int
    end: int
    text: str
    type: str = ""


@dataclass(frozen=True, slots=True)
class PairRecord:
    """One ordered pair with its gold labels and the model's answer.

    Attributes:
        doc: Identifier of the document.
        text: The text that the offsets count in: the document's.
        head: The first mention.
        tail: The second mention.
        gold: Labels that hold for this ordered pair, negatives left out; empty where none holds.
        enumerated: Whether the pair was a candidate. A gold pair that was not is in the file all the same: a miss.
        scores: (label, probability), best first, the negative among them under its own name; under free decoding the
            one answer.
        answer: The label that is reported before any threshold: the first of `scores` that is no negative if it beats
            the negative, else None. An answer outside the schema is reported as it was written.
        in_schema: False if `answer` is text that is no label.
        sentence: Character offsets of the sentence around the head, for showing.
        gold_types: Entity types of the two mentions in the annotations where those may differ from the types of `head`
            and `tail`: with predicted entities. None: there is nothing to compare.
        seen: Whether the sentence also occurs in the training data that the run was told of: "exact", "alike" (but for
            case and white space), or "" for no.
    """

    doc: str
    text: str
    head: MentionRecord
    tail: MentionRecord
    gold: tuple[str, ...] = ()
    enumerated: bool = True
    scores: tuple[tuple[str, float], ...] = ()
    answer: str | None = None
    in_schema: bool = True
    sentence: tuple[int, int] = (0, 0)
    gold_types: tuple[str, str] | None = None
    seen: Seen = ""

    @property
    def score(self) -> float:
        """Probability of the reported answer; 0 where there is none."""
        return next((value for label, value in self.scores if label == self.answer), 0.0)


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What produced a file of records.

    Attributes:
        dataset: Name of the data set.
        split: "dev", "test", …
        protocol: Which pairs were asked about.
        labels: The positive labels that could be answered.
        negative: The negative label that could be answered, or None.
        settings: Model, adapter, prompt, decoding and whatever else tells this run from another.
        counts: What was read, kept, skipped, asked; seconds taken.
    """

    dataset: str
    split: str
    protocol: Protocol
    labels: tuple[str, ...]
    negative: str | None
    settings: dict[str, Any] = field(default_factory=dict)
    counts: dict[str, Any] = field(default_factory=dict)

    @property
    def way(self) -> Way:
        """The protocol, or "published" where the given pairs were asked about in the published way."""
        return PUBLISHED if PUBLISHED in self.settings else self.protocol


def write_records(path: Path, info: RunInfo, records: Iterable[PairRecord]) -> None:
    """Write JSON Lines: the run first, then a record a line. The file appears only when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f"{path.name}.tmp")
    with scratch.open("w", encoding="utf-8") as file:
        file.write(header_line(info))
        file.writelines(map(record_line, records))
    scratch.replace(path)


def header_line(info: RunInfo | PromptRun) -> str:
    """The first line of a file of records."""
    return json.dumps(asdict(info), ensure_ascii=False) + "\n"


def record_line(record: PairRecord | PromptRecord) -> str:
    """A further line of a file of records."""
    return json.dumps(_fields(record), ensure_ascii=False, default=_fields) + "\n"


def read_records(path: Path) -> tuple[RunInfo, Iterator[PairRecord]]:
    """Read what `write_records` wrote; the records come as they are asked for.

    Raises:
        DataError: Naming the file and the line that cannot be read.
    """
    try:
        with path.open(encoding="utf-8") as file:
            first = file.readline()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}. Expected a file of an evaluation run.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text. Expected a file of `evaluate`.") from error
    try:
        data = parse_json(first)
        info = RunInfo(**{**data, "labels": tuple(data["labels"])})
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path}:1 does not describe an evaluation run. Expected a file of `evaluate`.") from error

    def records() -> Iterator[PairRecord]:
        text = ""
        # Opened anew: whoever wants only the run leaves no file open.
        with path.open(encoding="utf-8") as file:
            for number, line in islice(enumerate(file, 1), 1, None):
                try:
                    fields = parse_json(line)
                    if fields["text"] != text:
                        text = fields["text"]
                    yield _record({**fields, "text": text})  # the pairs of a document share its text in memory
                except (ValueError, TypeError, KeyError) as error:
                    raise DataError(f"{path}:{number} is no record of a pair: {error!r}.") from error

    return info, records()


def _fields(value: Any) -> dict[str, Any]:
    # `asdict` copies every tuple in depth, which is most of the time of writing a large run.
    return {name: getattr(value, name) for name in value.__slots__}


def _record(data: dict[str, Any]) -> PairRecord:
    return PairRecord(
        **{
            **data,
            "head": MentionRecord(**data["head"]),
            "tail": MentionRecord(**data["tail"]),
            "gold": tuple(data["gold"]),
            "scores": tuple((label, float(value)) for label, value in data["scores"]),
            "sentence": tuple(data["sentence"]),
            "gold_types": tuple(data["gold_types"]) if data.get("gold_types") is not None else None,
        }
    )
