"""Rebuild the benchmark label sets in `spacy_relx/schemas` from the data sets' own files.

Usage: python scripts/make_schemas.py DATA [--out spacy_relx/schemas] [--check]

DATA holds one folder for each data set, with the file names of its public repository (`project.yml` names the
addresses). With --check nothing is written, and the exit status is 1 if a file differs from what would be written.
The general schema is written by hand and is not touched.
"""

# ruff: noqa: D103 - a reader has the name of the data set it reads

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

Labels = dict[str, dict[str, Any]]

# TACRED's text is licensed by the LDC and its label list is in no open file; the names are those of the TAC KBP slots.
TACRED_ORG = (
    "alternate_names city_of_headquarters country_of_headquarters dissolved founded founded_by member_of members "
    "number_of_employees/members parents political/religious_affiliation shareholders stateorprovince_of_headquarters "
    "subsidiaries top_members/employees website"
)
TACRED_PER = (
    "age alternate_names cause_of_death charges children cities_of_residence city_of_birth city_of_death "
    "countries_of_residence country_of_birth country_of_death date_of_birth date_of_death employee_of origin "
    "other_family parents religion schools_attended siblings spouse stateorprovince_of_birth stateorprovince_of_death "
    "stateorprovinces_of_residence title"
)


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf8"))


def plain(names: Any) -> Labels:
    return {name: {} for name in names}


def tacred(data: Path) -> Labels:
    return plain([f"org:{slot}" for slot in TACRED_ORG.split()] + [f"per:{slot}" for slot in TACRED_PER.split()])


def retacred(data: Path) -> Labels:
    return plain(sorted(set(read_json(data / "tacred_labels/retacred_labels.json")) - {"no_relation"}))


def semeval(data: Path) -> Labels:
    text = (data / "semeval2010_task8/TRAIN_FILE.TXT").read_text(encoding="utf8")
    return plain(sorted(set(re.findall(r"^([A-Z][a-z]+-[A-Z][a-z]+\(e[12],e[12]\))\s*$", text, re.M))))


def conll04(data: Path) -> Labels:
    """Count the entity types on both sides: each relation has exactly one pair of them."""
    seen: dict[str, Counter[tuple[str, str]]] = {}
    for split in ("train", "dev", "test"):
        for row in read_json(data / f"conll04/conll04_{split}.json"):
            types = [tag.split("-", 1)[1] for tag in row["tags"] if tag[0] in "BU"]
            for relation in row["relations"]:
                pair = (types[relation["head"]], types[relation["tail"]])
                seen.setdefault(relation["type"], Counter())[pair] += 1
    for name, pairs in seen.items():
        if len(pairs) != 1:
            raise SystemExit(f"conll04: {name} holds between {pairs}; expected one pair of entity types")
    return {name: {"head": [h], "tail": [t]} for name in sorted(seen) for h, t in seen[name]}


def nyt11(data: Path) -> Labels:
    return plain(read_json(data / "nyt/rel2id.json")[0].values())


def gids(data: Path) -> Labels:
    """Take the names from the rows: the list in relation2id.txt has another spelling of one of them."""
    rows = (line.split("\t") for s in ("dev", "test") for line in (data / f"gids/{s}.tsv").open(encoding="utf8"))
    return plain(sorted({row[4] for row in rows} - {"NA"}))


def redocred(data: Path) -> Labels:
    return {name: {"id": pid} for pid, name in read_json(data / "redocred/rel_info.json").items()}


def rebel(data: Path) -> Labels:
    rows = (data / "rebel/relations_count.tsv").read_text(encoding="utf8").splitlines()
    ids = rebel_sample_ids(data)
    names = sorted(row.split("\t")[0] for row in rows)
    return {name: {"id": ids[name]} if name in ids else {} for name in names}


def rebel_sample_ids(data: Path) -> dict[str, str]:
    ids = {}
    for line in (data / "rebel_sample/sample.jsonl").open(encoding="utf8"):
        for triple in json.loads(line)["triples"]:
            ids[triple["predicate"]["surfaceform"]] = triple["predicate"]["uri"]
    return ids


def fewrel(data: Path) -> Labels:
    names = read_json(data / "fewrel/pid2name.json")
    return {
        names[pid][0]: {"id": pid, "description": names[pid][1]} for pid in read_json(data / "fewrel/val_wiki.json")
    }


def wiki80(data: Path) -> Labels:
    ids = {name: (pid, text) for pid, (name, text) in read_json(data / "fewrel/pid2name.json").items()}
    names = sorted(read_json(data / "wiki80/rel2id.json"))
    return {name: {"id": ids[name][0], "description": ids[name][1]} for name in names}


def kbp37(data: Path) -> Labels:
    rows = (line.strip() for line in (data / "kbp37/train.txt").open(encoding="utf8"))
    return plain(sorted({row for row in rows if re.fullmatch(r"(org|per):\S+\(e[12],e[12]\)", row)}))


def scierc(data: Path) -> Labels:
    rows = (json.loads(line) for s in ("train", "dev", "test") for line in (data / f"scierc/{s}.txt").open())
    return plain(sorted({row["label"] for row in rows}))


def fact(title: str, source: str, licence: str, n: int, no_relation: str | None, note: str) -> dict[str, Any]:
    return {
        "title": title,
        "source": source,
        "licence": licence,
        "n_published": n,
        "no_relation": no_relation,
        "note": note,
    }


SCHEMAS = {
    "tacred": (
        tacred,
        fact(
            "TACRED",
            "Zhang et al. 2017, https://nlp.stanford.edu/projects/tacred/",
            "LDC User Agreement (LDC2018T24)",
            41,
            "no_relation",
            "The corpus is not redistributed; these are its label names only.",
        ),
    ),
    "retacred": (
        retacred,
        fact(
            "Re-TACRED",
            "Stoica et al. 2021, https://github.com/gstoica27/Re-TACRED",
            "none stated for the label names; the text is TACRED's",
            39,
            "no_relation",
            "TACRED with revised labels.",
        ),
    ),
    "semeval2010_task8": (
        semeval,
        fact(
            "SemEval-2010 Task 8",
            "Hendrickx et al. 2010, https://aclanthology.org/S10-1006/",
            "CC BY 3.0",
            18,
            "Other",
            "Nine relations in two directions. e1 is the entity that comes first in the text, so ask for each pair "
            "in text order only (directed=false).",
        ),
    ),
    "conll04": (
        conll04,
        fact(
            "CoNLL04",
            "Roth and Yih 2004, files of https://github.com/YoumiMa/TablERT-CNN",
            "none stated",
            5,
            None,
            "Entity types are the data set's own: Loc, Org, Peop, Other. Gold pairs are positives only.",
        ),
    ),
    "nyt11": (
        nyt11,
        fact(
            "NYT11",
            "Riedel et al. 2010, files of https://github.com/hy-struggle/PRGC",
            "none stated",
            24,
            None,
            "Distant supervision; 22 of the 24 labels occur in the validation and test files.",
        ),
    ),
    "gids": (
        gids,
        fact(
            "Google-IISc Distant Supervision (GIDS)",
            "Jat et al. 2018, https://github.com/SharmisthaJat/RE-DS-Word-Attention-Models",
            "none stated",
            4,
            "NA",
            "Distant supervision. The repository's relation2id.txt spells one label otherwise than the data; this is "
            "the data's spelling.",
        ),
    ),
    "redocred": (
        redocred,
        fact(
            "Re-DocRED",
            "Tan et al. 2022, https://github.com/tonytan48/Re-DocRED",
            "MIT",
            96,
            None,
            "Names are the English names of the Wikidata properties in id. Annotated pairs are positives only.",
        ),
    ),
    "rebel": (
        rebel,
        fact(
            "REBEL",
            "Huguet Cabot and Navigli 2021, https://github.com/Babelscape/rebel",
            "CC BY-NC-SA 4.0",
            220,
            None,
            "The 230 relations of the authors' data/relations_count.tsv, to which their reader restricts the data. The "
            "paper counts 220, later work 219; which of the 230 are left out there is not known. id is given where "
            "the authors' sample has it.",
        ),
    ),
    "fewrel": (
        fewrel,
        fact(
            "FewRel 1.0, validation relations",
            "Han et al. 2018, https://github.com/thunlp/FewRel",
            "MIT",
            100,
            None,
            "Only the 16 relations of val_wiki; wiki80 has these and the 64 of the training split, and the 20 of the "
            "test split are not published.",
        ),
    ),
    "wiki80": (
        wiki80,
        fact(
            "Wiki80",
            "built from FewRel, https://github.com/thunlp/RE-Context-or-Names",
            "none stated; FewRel's is MIT",
            80,
            None,
            "No negatives.",
        ),
    ),
    "kbp37": (
        kbp37,
        fact(
            "KBP37",
            "Zhang and Wang 2015, https://github.com/zhangdongxu/kbp37",
            "none stated",
            36,
            "no_relation",
            "18 relations in two directions. e1 is the entity that comes first in the text, so ask for each pair in "
            "text order only (directed=false).",
        ),
    ),
    "scierc": (
        scierc,
        fact(
            "SciERC",
            "Luan et al. 2018, files of https://github.com/allenai/scibert",
            "Apache-2.0 (repository)",
            7,
            None,
            "Abstracts of scientific papers. COMPARE and CONJUNCTION hold in both orders but are annotated in one.",
        ),
    ),
}


def render(name: str, data: Path) -> str:
    read, facts = SCHEMAS[name]
    labels = read(data)
    facts = facts | {"complete": len(labels) == facts["n_published"], "labels": labels}
    order = ("title", "source", "licence", "complete", "n_published", "note", "no_relation", "labels")
    head = {"name": name} | {key: facts[key] for key in order[:-1]}
    lines = [f"    {json.dumps(n, ensure_ascii=False)}: {json.dumps(e, ensure_ascii=False)}" for n, e in labels.items()]
    opening = json.dumps(head, indent=2, ensure_ascii=False).removesuffix("\n}")
    return f'{opening},\n  "labels": {{\n' + ",\n".join(lines) + "\n  }\n}\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "spacy_relx/schemas")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    n_stale = 0
    for name in SCHEMAS:
        path, text = args.out / f"{name}.json", render(name, args.data)
        if args.check:
            stale = not path.exists() or path.read_text(encoding="utf8") != text
            n_stale += stale
            print(f"{name}: {'differs' if stale else 'same'}")
        else:
            path.write_text(text, encoding="utf8")
            print(f"{name}: {len(json.loads(text)['labels'])} labels")
    return 1 if n_stale else 0


if __name__ == "__main__":
    sys.exit(main())
