"""The plan on the page is what the script computes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "corpus_plan.py"
PAGE = ROOT / "docs" / "how-to" / "clusters.md"
PLAN = re.compile(r"(?<=<!-- plan -->\n).*?(?=<!-- end of plan -->)", re.DOTALL)


def run(*arguments: str) -> str:
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_the_page_has_the_plan(update_docs: bool) -> None:
    text = PAGE.read_text("utf8")
    now = PLAN.sub(lambda _: f"\n{run()}\n", text)
    if update_docs:
        PAGE.write_text(now, "utf8")
    assert text == now or update_docs


def test_a_plan_by_hand() -> None:
    """3,600 documents of one pair, one pair a second: an hour, and one death an hour costs half an hour more."""
    sizes = ("--documents", "3600", "--pairs", "1", "--block-size", "3600", "--actors", "1")
    text = run(*sizes, "--speed", "mine:1:2", "--hours-between-deaths", "1", "--start-seconds", "0", "--rest", "inf")
    assert text.splitlines()[-1] == "| mine | 1 | 1.5 | 67 % | 3 | 0.062 | 60 min | 1 | 50 % |"


def test_other_components_by_hand() -> None:
    """As many documents, of which the other components do half a one a second: two hours more."""
    sizes = ("--documents", "3600", "--pairs", "1", "--block-size", "360", "--actors", "1", "--start-seconds", "0")
    text = run(*sizes, "--speed", "mine:1:2", "--hours-between-deaths", "1e9", "--rest", "0.5")
    assert text.splitlines()[-1].startswith("| mine | 1 | 3 | 33 % | 6 | 0.13 | 18 min |")
