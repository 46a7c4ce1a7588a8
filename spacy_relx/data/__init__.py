"""Data sets with relations: their public files in, Docs with gold entities and relations out.

To add one, write a function that gives a `Row` for every text of a file and a `Problem` for what it cannot use, and
describe it in a `DataSet`; `read_docs` does the rest. To use it in configs and on the command line, add it to
`DATASETS`, and a line each to `registered` and to the entry points.
"""

from __future__ import annotations

from spacy_relx.data.base import BadRow, DataSet, Mention, Problem, Row, Split
from spacy_relx.data.columns import BIOGRAPHICAL, PG_FICTION
from spacy_relx.data.conll04 import CONLL04
from spacy_relx.data.docs import GOLD_SPANS, Report, doc_id, read_docs
from spacy_relx.data.fewrel import FEWREL, WIKI80
from spacy_relx.data.gids import GIDS
from spacy_relx.data.marked import KBP37, SCIERC, SEMEVAL
from spacy_relx.data.mixtures import MIXTURES, PromptRow, read_prompts
from spacy_relx.data.rebel import REBEL
from spacy_relx.data.redocred import REDOCRED
from spacy_relx.data.tacred import RETACRED, TACRED
from spacy_relx.data.triples import NYT11, WEBNLG
from spacy_relx.errors import DataError
from spacy_relx.schema_config import did_you_mean

__all__ = [
    "DATASETS",
    "GOLD_SPANS",
    "BadRow",
    "DataSet",
    "Mention",
    "Problem",
    "PromptRow",
    "Report",
    "Row",
    "Split",
    "dataset",
    "doc_id",
    "read_docs",
    "read_prompts",
]

_ALL = (
    *(SEMEVAL, CONLL04, NYT11, GIDS, REDOCRED, REBEL, TACRED, BIOGRAPHICAL, PG_FICTION),
    *(RETACRED, KBP37, SCIERC, FEWREL, WIKI80, WEBNLG),
)
#: The data sets by name, the nine benchmarks of the published system first.
DATASETS = {entry.name: entry for entry in _ALL}


def dataset(name: str) -> DataSet:
    """Return a data set by its name.

    Raises:
        DataError: There is none.
    """
    if name in MIXTURES or f"Despina/{name}" in MIXTURES:
        raise DataError(
            f"{name!r} holds finished prompts, not texts. Read it with spacy_relx.data.read_prompts; "
            "`rows --prompts` and `evaluate mixture` take it, too."
        )
    if name not in DATASETS:
        raise DataError(
            f"There is no data set {name!r}.{did_you_mean(name, tuple(DATASETS))} Known: {', '.join(DATASETS)}."
        )
    return DATASETS[name]
