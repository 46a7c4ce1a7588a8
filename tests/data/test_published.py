"""The sizes of the data sets: counted by hand in the real rows that lie here, published where their own files are."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import spacy

from spacy_relx.data import DATASETS, Report, read_docs

ROOT = Path(__file__).parents[2]
FILES = Path(__file__).parent / "files"
DATA = os.environ.get("SPACY_RELX_DATA")


@pytest.fixture
def script() -> Any:
    spec = importlib.util.spec_from_file_location("check_datasets", ROOT / "scripts" / "check_datasets.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["check_datasets"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "file", "options", "rows", "docs", "mentions", "relations", "negatives", "labels"),
    [
        ("semeval2010_task8", FILES / "semeval.TXT", {}, 3, 3, 6, 2, 1, 3),
        ("semeval2010_task8", ROOT / "scripts" / "smoke" / "semeval2010_task8.txt", {}, 30, 30, 60, 25, 5, 12),
        ("scierc", FILES / "scierc.txt", {}, 3, 3, 6, 3, 0, 2),
        ("fewrel", FILES / "fewrel.json", {}, 3, 3, 6, 3, 0, 2),
        ("redocred", FILES / "redocred.json", {"level": "document"}, 1, 1, 9, 8, 0, 2),
        ("redocred", FILES / "redocred.json", {"level": "sentence"}, 4, 4, 7, 7, 0, 2),
    ],
)
def test_the_sizes_of_real_rows(
    name: str,
    file: Path,
    options: dict[str, str],
    rows: int,
    docs: int,
    mentions: int,
    relations: int,
    negatives: int,
    labels: int,
) -> None:
    report = Report()
    read = list(read_docs(DATASETS[name], file, spacy.blank("en"), report=report, **options))
    assert (report.n_rows, len(read), report.n_mentions) == (rows, docs, mentions)
    assert (report.n_relations, report.n_negatives, len(report.labels)) == (relations, negatives, labels)
    assert sum(len(doc._.relations) for doc in read) == relations + negatives


def test_the_script_sees_that_files_are_cut(script: Any, tmp_path: Path) -> None:
    for name, file in (("scierc/train.txt", "scierc.txt"), ("fewrel/val_wiki.json", "fewrel.json")):
        (tmp_path / name).parent.mkdir()
        shutil.copy(FILES / file, tmp_path / name)
    found = {(check.dataset, check.what): check for check in script.checks(tmp_path)}
    rows = [found["scierc", "rows"], found["fewrel", "rows"], found["fewrel", "labels that occur"]]
    assert [(check.expected, check.found, check.is_met) for check in rows] == [
        (3219, 3, False),
        (11200, 3, False),
        (16, 2, False),
    ]
    assert found["fewrel", "Docs whose relations are not on gold mentions"].is_met


@pytest.mark.skipif(not DATA, reason="`make test-data` fetches the data sets and names them in SPACY_RELX_DATA")
def test_the_published_sizes(script: Any) -> None:
    found = list(script.checks(Path(DATA or "")))
    assert found
    assert [check for check in found if not check.is_met] == []
