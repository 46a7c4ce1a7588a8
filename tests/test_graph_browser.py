"""The graph page in a real browser: what clicks, keys and touches do, and that no request leaves the page."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import spacy
from spacy.tokens import Doc, Span

from spacy_relx import view

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install --group test")

#: A browser is large, so none is fetched: the one of the machine is used, as `.ci/run` installs it on Debian.
BROWSER = os.environ.get("BROWSER_FOR_TESTS") or shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs Chromium: apt-get install chromium")

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
GRAPH = "document.getElementById('graph')._cyreg.cy"  # where Cytoscape.js leaves a graph in its container
TIMEOUT = 120_000  # ms; a busy machine is no failure

TEXTS: list[tuple[str, dict[str, str], list[tuple[str, str, str, float]]]] = [
    (
        "Mara Velling founded Orlen Robotics in Turku. She studied at Aalto University.",
        {"Mara Velling": "PERSON", "Orlen Robotics": "ORG", "Turku": "GPE", "Aalto University": "ORG"},
        [
            ("Orlen Robotics", "founded_by", "Mara Velling", 0.97),
            ("Orlen Robotics", "located_in", "Turku", 0.71),
            ("Mara Velling", "educated_at", "Aalto University", 0.35),
        ],
    ),
    (
        "Ines Holm succeeds Mara Velling at Orlen Robotics.",
        {"Ines Holm": "PERSON", "Mara Velling": "PERSON", "Orlen Robotics": "ORG"},
        [
            ("Ines Holm", "works_for", "Orlen Robotics", 0.9),
            ("Ines Holm", "knows", "Mara Velling", 0.6),
            ("Mara Velling", "knows", "Ines Holm", 0.5),
            ("Orlen Robotics", "founded_by", "Mara Velling", 0.41),
        ],
    ),
]
EVIL = "<img src=x onerror=window.broken=1></script><script>window.broken=1</script>"


def made(text: str, ents: dict[str, str], relations: list[tuple[str, str, str, float]]) -> Doc:
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    doc = nlp(text)
    spans = {name: doc.char_span(text.index(name), text.index(name) + len(name), label) for name, label in ents.items()}
    doc.ents = list(spans.values())
    doc._.relations = [(spans[head], label, spans[tail], score) for head, label, tail, score in relations]
    return doc


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=FLAGS, timeout=TIMEOUT)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages that the tests open."""
    folder = tmp_path_factory.mktemp("pages")
    view.save_graph([made(*text) for text in TEXTS], folder / "small.html", title="Orlen Robotics")
    words = [f"Name{n}" for n in range(330)]
    many = Doc(spacy.blank("en").vocab, words=words)
    many._.relations = [((n, n + 1), f"label{n % 3}", (n // 2, n // 2 + 1), 1 - n / 1000) for n in range(1, 330)]
    view.save_graph(many, folder / "many.html", max_relations=300)
    evil = Doc(spacy.blank("en").vocab, words=[EVIL, "owns", EVIL[::-1]])
    evil.ents = [Span(evil, 0, 1, EVIL)]
    evil.user_data["id"] = EVIL
    evil._.relations = [(evil.ents[0], EVIL, (2, 3), 0.5)]
    view.save_graph(evil, folder / "evil.html", title=EVIL)
    view.save_graph([], folder / "empty.html")
    framed = view.graph(made(*TEXTS[0]))._repr_html_()
    (folder / "notebook.html").write_text(f"<!DOCTYPE html><meta charset=utf-8>{framed}", encoding="utf8")
    return folder


@pytest.fixture
def problems() -> list[str]:
    """What the pages of a test complained of."""
    return []


@pytest.fixture
def open_page(browser: Any, folder: Path, problems: list[str]) -> Iterator[Any]:
    """A function that opens a page; afterwards, nothing may have gone wrong in it and nothing been asked for."""
    contexts, requests = [], []

    def opened(name: str = "small", **settings: Any) -> Any:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **settings})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(TIMEOUT)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text))
        page.on("request", lambda request: requests.append(request.url))
        page.goto((folder / f"{name}.html").as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert problems == []
    asked = [url for url in requests if url != "about:srcdoc"]
    assert len(asked) == len(contexts), asked


def rows(page: Any) -> list[str]:
    """Return the list's lines as they are read out."""
    return page.locator("#list li").all_text_contents()


def drawn(page: Any, kind: str = "edges") -> int:
    return page.evaluate(f"{GRAPH}.{kind}().length")


def place(page: Any, selector: str) -> tuple[float, float]:
    """Return where in the viewport an element of the graph is; of an edge, its middle."""
    return page.evaluate(
        """selector => {
            const container = document.getElementById('graph');
            const found = container._cyreg.cy.$(selector)[0];
            const at = found.isEdge() ? found.renderedMidpoint() : found.renderedPosition();
            const box = container.getBoundingClientRect();
            return [box.left + at.x, box.top + at.y];
        }""",
        selector,
    )


def test_a_click_on_an_edge_shows_the_sentences_it_came_from(open_page: Any) -> None:
    page = open_page()
    assert page.inner_text("#summary") == "5 entities and 6 relations from 2 documents"
    assert not page.is_visible("#detail")
    page.mouse.click(*place(page, "edge[label = 'founded_by']"))
    assert page.inner_text("#detail-title") == "Orlen Robotics founded_by Mara Velling"
    quotes = page.locator("#detail blockquote")
    assert quotes.all_inner_texts() == [
        "Mara Velling founded Orlen Robotics in Turku.",
        "Ines Holm succeeds Mara Velling at Orlen Robotics.",
    ]
    assert quotes.first.locator("mark.head").inner_text() == "Orlen Robotics"
    assert quotes.first.locator("mark.tail").inner_text() == "Mara Velling"
    chosen = page.text_content("#list li[aria-selected=true]")
    assert chosen == "Orlen Robotics founded_by Mara Velling score 0.97 · 2\N{MULTIPLICATION SIGN}"
    page.click("#close")
    assert not page.is_visible("#detail")
    assert page.locator("#list li[aria-selected=true]").count() == 0


def test_both_directions_of_a_pair_can_be_clicked(open_page: Any) -> None:
    page = open_page()
    titles = set()
    for edge_id in page.evaluate(f"{GRAPH}.edges('[label = \"knows\"]').map(edge => edge.id())"):
        page.mouse.click(*place(page, f"#{edge_id}"))
        titles.add(page.inner_text("#detail-title"))
        page.keyboard.press("Escape")
    assert titles == {"Ines Holm knows Mara Velling", "Mara Velling knows Ines Holm"}


def test_filters_of_score_and_label(open_page: Any) -> None:
    page = open_page()
    page.fill("#score", "0.6")
    assert (len(rows(page)), drawn(page)) == (4, 4)
    assert page.inner_text("#matching") == "4 of 6 relations"
    page.fill("#score", "0")
    page.get_by_role("checkbox", name="knows").uncheck()
    assert (len(rows(page)), drawn(page)) == (4, 4)
    page.click("#none")
    assert (rows(page), drawn(page), drawn(page, "nodes")) == ([], 0, 0)
    assert page.inner_text("#drawn") == "No relation matches."
    page.get_by_role("checkbox", name="located_in").check()
    assert (len(rows(page)), drawn(page, "nodes")) == (1, 2)
    page.click("#all")
    assert (len(rows(page)), drawn(page, "nodes")) == (6, 5)


def test_search_knows_names_and_labels_and_neither_case_nor_accents(open_page: Any) -> None:
    page = open_page()
    for words, expected in (("HÓLM", 3), ("holm works", 1), ("founded by", 1), ("nobody", 0), ("", 6)):
        page.fill("#search", words)
        assert len(rows(page)) == drawn(page) == expected


def test_a_filter_closes_what_it_hides(open_page: Any) -> None:
    page = open_page()
    page.click("#list li >> nth=0")
    assert page.is_visible("#detail")
    page.fill("#search", "holm")
    assert not page.is_visible("#detail")


def test_a_click_on_a_node_lists_its_relations(open_page: Any) -> None:
    page = open_page()
    page.mouse.click(*place(page, "node[name = 'Ines Holm']"))
    assert len(rows(page)) == 3
    assert all("Ines Holm" in row for row in rows(page))
    assert drawn(page) == 6  # the others are faded, not gone
    page.keyboard.press("Escape")
    assert len(rows(page)) == 6
    page.mouse.click(*place(page, "node[name = 'Turku']"))
    page.click("#only-clear")
    assert len(rows(page)) == 6


def test_nodes_can_be_dragged_and_stay(open_page: Any) -> None:
    page = open_page()
    x, y = place(page, "node[name = 'Turku']")
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 20, y + 5)
    page.mouse.move(x + 60, y + 40)
    page.mouse.up()
    assert place(page, "node[name = 'Turku']") == pytest.approx([x + 60, y + 40], abs=2)
    assert len(rows(page)) == 6  # a drag is no click
    at = f"{GRAPH}.nodes('[name = \"Turku\"]').position()"
    before = page.evaluate(at)
    page.fill("#search", "holm")
    page.fill("#search", "")
    assert page.evaluate(at) == before


def test_everything_by_keyboard(open_page: Any) -> None:
    page = open_page()
    focused = "document.activeElement.matches('li') ? document.activeElement.textContent : document.activeElement.id"
    page.focus("#search")
    page.keyboard.press("Tab")
    assert page.evaluate(focused) == "score"
    page.keyboard.press("ArrowRight")
    assert page.input_value("#score") == "0.01"
    page.keyboard.press("Home")
    page.focus("#labels label:last-child input")
    page.keyboard.press("Tab")
    first, second, *_, last = rows(page)
    assert page.evaluate(focused) == first
    page.keyboard.press("ArrowDown")
    assert page.evaluate(focused) == second
    assert not page.is_visible("#detail")
    page.keyboard.press("Enter")
    assert second.startswith(page.inner_text("#detail-title"))
    page.keyboard.press("End")  # the sentences follow while they are open
    assert page.evaluate(focused) == last
    assert last.startswith(page.inner_text("#detail-title"))
    page.keyboard.press("Home")
    page.keyboard.press("ArrowUp")
    assert page.evaluate(focused) == first
    page.keyboard.press("Escape")
    assert not page.is_visible("#detail")
    assert page.evaluate(focused) == first


def test_more_relations_than_are_drawn_at_once(open_page: Any) -> None:
    page = open_page("many")
    assert page.inner_text("#summary").endswith("those found in most places, of 329 relations in all")
    assert page.inner_text("#drawn").startswith("250 of 300 are drawn, found in most places first")
    assert (drawn(page), len(rows(page))) == (250, 200)
    page.click("#more")
    assert len(rows(page)) == 300
    page.keyboard.press("End")
    page.keyboard.press("Enter")  # the last one was not drawn before
    assert drawn(page) == 251
    page.keyboard.press("Escape")
    page.click("#drawn button")
    assert (drawn(page), page.inner_text("#drawn")) == (300, "")


def test_text_of_documents_is_text(open_page: Any, problems: list[str]) -> None:
    page = open_page("evil")
    page.click("#list li")
    assert page.inner_text("h1") == EVIL
    assert page.locator("#detail mark.head").first.inner_text() == EVIL
    assert page.locator("img").count() == 0
    assert page.evaluate("window.broken") is None
    # Had there been markup, the page's policy would have stopped it: this is markup on purpose.
    refused = page.evaluate(
        """() => new Promise(done => {
            document.addEventListener('securitypolicyviolation', event => done(event.violatedDirective));
            document.body.insertAdjacentHTML('beforeend', '<b onclick="window.broken=1">x</b>');
            document.body.lastElementChild.click();
        })"""
    )
    assert refused.startswith("script-src")
    assert page.evaluate("window.broken") is None
    (said,) = problems
    assert "Content Security Policy" in said
    problems.clear()


def test_nothing_to_show(open_page: Any) -> None:
    page = open_page("empty")
    assert page.inner_text("#drawn") == "There are no relations."
    page.focus("#list")
    page.keyboard.press("Enter")
    page.fill("#search", "x")


def test_in_the_frame_of_a_notebook(open_page: Any) -> None:
    page = open_page("notebook")
    frame = page.frame_locator("iframe")
    frame.locator("#list li").first.click()
    assert frame.locator("#detail-title").inner_text() == "Orlen Robotics founded_by Mara Velling"


def luminance(color: str) -> float:
    """Return the relative luminance of a CSS colour like "rgb(1, 2, 3)"; Source: WCAG 2.2, "relative luminance"."""
    channels = [int(part) / 255 for part in color[color.index("(") + 1 : -1].split(",")[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_light_and_dark(open_page: Any, scheme: str) -> None:
    page = open_page(color_scheme=scheme)
    page.click("#list li")
    assert (luminance(page.evaluate("getComputedStyle(document.body).backgroundColor")) < 0.05) is (scheme == "dark")
    for selector in (
        "body",
        "#summary",
        "#detail blockquote",
        "#list li .note",
        "#list .relation",
        "mark.head",
        "mark.tail",
    ):
        colors = page.eval_on_selector(
            selector,
            """one => {
                const color = getComputedStyle(one).color;
                for (; one; one = one.parentElement) {
                    const ground = getComputedStyle(one).backgroundColor;
                    if (!ground.startsWith('rgba') && ground.startsWith('rgb')) return [color, ground];
                }
            }""",
        )
        lighter, darker = sorted((luminance(color) for color in colors), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5, (selector, colors)  # WCAG's AA


def test_the_graph_follows_a_change_of_the_scheme(open_page: Any) -> None:
    page = open_page(color_scheme="light")
    color = f"{GRAPH}.edges()[0].style('color')"
    light = page.evaluate(color)
    page.emulate_media(color_scheme="dark")
    # Asked from here again and again: a predicate inside the page would be made with eval, which the page forbids.
    for _ in range(100):
        if page.evaluate(color) != light:
            break
        page.wait_for_timeout(50)
    assert page.evaluate(color) != light


def test_on_a_phone(open_page: Any) -> None:
    page = open_page(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.touchscreen.tap(*place(page, "edge[label = 'works_for']"))
    assert page.inner_text("#detail-title") == "Ines Holm works_for Orlen Robotics"
    box = page.locator("#detail").bounding_box()
    assert box["x"] == 0
    assert box["y"] + box["height"] == pytest.approx(844, abs=1)
    page.tap("#close")
    page.locator("#list li").last.tap()
    assert page.is_visible("#detail")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    small = page.eval_on_selector_all(
        "button, #list li, input[type=search]",
        "all => all.filter(one => one.offsetParent && one.getBoundingClientRect().height < 24).map(one => one.id)",
    )
    assert small == []  # WCAG's least size of what is touched, in px


def test_screenshot(open_page: Any, tmp_path: Path) -> None:
    page = open_page()
    page.click("#list li")
    path = tmp_path / "page.png"
    page.screenshot(path=path)
    assert path.stat().st_size > 20_000  # an empty page has less than half of that
