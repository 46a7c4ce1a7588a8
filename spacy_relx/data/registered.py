"""The readers `spacy-relx.<dataset>.v1` that configs name: data sets' own files as spaCy's training examples."""

from __future__ import annotations

import inspect
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spacy.util import logger

from spacy_relx.data import DATASETS
from spacy_relx.data.docs import ID_KEY, Report, read_docs
from spacy_relx.errors import DataError, RelxWarning
from spacy_relx.readers import example_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from spacy.language import Language
    from spacy.training import Example

    from spacy_relx.data.base import DataSet, OnError

_ARGUMENTS = """\
Args:
    path: A file, or a list of files.
    gold_entities: Whether the predicted Doc has the gold entities, span group and sentence boundaries.
    limit: Most Docs to read; 0: all.
    on_error: What a row that cannot be used does: "skip" reports it and goes on, "raise" stops.
    merge: Whether neighbouring rows of one text become one Doc with the pairs of all of them."""


def make_reader(dataset: DataSet) -> Callable[..., Callable[[Language], Iterable[Example]]]:
    """Return the function that is registered for a data set; its arguments are told in its docstring.

    The first time, what was read is logged where `spacy train` shows it, and what was skipped because of the data is a
    warning.
    """

    def reader(
        path: Path,
        gold_entities: bool = True,
        limit: int = 0,
        on_error: OnError = "skip",
        merge: bool = False,
        **options: str,
    ) -> Callable[[Language], Iterable[Example]]:
        dataset.check_options(options)
        if on_error not in ("skip", "raise"):
            raise DataError(f"on_error is {on_error!r}. Expected 'skip' or 'raise'.")

        is_new = True

        def read(nlp: Language) -> Iterable[Example]:
            nonlocal is_new
            report = Report()
            settings: dict[str, Any] = {"on_error": on_error, "limit": limit, "merge": merge, **options}
            for gold in read_docs(dataset, path, nlp, report=report, **settings):
                example = example_of(gold, gold_entities=gold_entities)
                example.predicted.user_data[ID_KEY] = gold.user_data[ID_KEY]
                yield example
            if not is_new:  # training reads a corpus again and again
                return
            is_new = False
            logger.info("%s: %s", dataset.name, report)
            faults = [problem for problem in report.problems if problem.is_fault]
            if faults:
                advice = f" `python -m spacy relx convert {dataset.name}` lists every reason."
                warnings.warn(
                    f"{dataset.title}: {report}. {len(faults)} of them because of the data, such as {faults[0]}."
                    f"{advice if DATASETS.get(dataset.name) is dataset else ''}",
                    RelxWarning,
                    stacklevel=2,
                )

        return read

    # Configs are checked against the signature, so the data set's own options have to be in it.
    signature = inspect.signature(reader)
    own = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=choices[0], annotation=str)
        for name, choices in dataset.options.items()
    ]
    fixed = [parameter for name, parameter in signature.parameters.items() if name != "options"]
    annotations: dict[str, Any] = {"path": Path | list[Path], "gold_entities": bool, "limit": int, "on_error": str}
    annotations["merge"] = bool
    fixed = [parameter.replace(annotation=annotations[parameter.name]) for parameter in fixed]
    reader.__signature__ = signature.replace(parameters=[*fixed, *own], return_annotation=inspect.Signature.empty)  # type: ignore[attr-defined]
    reader.__name__ = reader.__qualname__ = dataset.name
    choices = "".join(f"\n    {name}: One of {', '.join(values)}." for name, values in dataset.options.items())
    reader.__doc__ = f"Read files of {dataset.title} as examples.\n\n{_ARGUMENTS}{choices}"
    return reader


semeval2010_task8 = make_reader(DATASETS["semeval2010_task8"])
conll04 = make_reader(DATASETS["conll04"])
nyt11 = make_reader(DATASETS["nyt11"])
gids = make_reader(DATASETS["gids"])
redocred = make_reader(DATASETS["redocred"])
rebel = make_reader(DATASETS["rebel"])
tacred = make_reader(DATASETS["tacred"])
biographical = make_reader(DATASETS["biographical"])
pg_fiction = make_reader(DATASETS["pg_fiction"])
retacred = make_reader(DATASETS["retacred"])
kbp37 = make_reader(DATASETS["kbp37"])
scierc = make_reader(DATASETS["scierc"])
fewrel = make_reader(DATASETS["fewrel"])
wiki80 = make_reader(DATASETS["wiki80"])
webnlg = make_reader(DATASETS["webnlg"])
