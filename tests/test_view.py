import re
from html.parser import HTMLParser

import pytest
import spacy
from spacy.tokens import Doc, Span

from spacy_relx import view
from spacy_relx.errors import DataError


@pytest.fixture
def nlp():
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    return nlp


@pytest.fixture
def doc(nlp):
    doc = nlp("Steve Jobs founded Apple in Cupertino. Tim Cook runs it.")
    doc.ents = [
        Span(doc, 0, 2, "PERSON"),
        Span(doc, 3, 4, "ORG"),
        Span(doc, 5, 6, "GPE"),
        Span(doc, 7, 9, "PERSON"),
    ]
    return doc


def arcs(html):
    return re.findall(r'class="displacy-arc".*? d="([^"]+)"', html)


def labels(html):
    return re.findall(r'class="displacy-label"[^>]*>([^<]+)<', html)


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.seen = [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        if tag not in {"meta", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def tags(html):
    parser = Tags()
    parser.feed(html)
    parser.close()
    assert parser.open == []
    return parser.seen


def test_arcs_labels_scores_and_table(doc):
    jobs, apple, cupertino, _ = doc.ents
    doc._.relations = [(apple, "founded_by", jobs, 0.934), (apple, "headquartered_in", cupertino, 0.5)]
    html = view.render(doc)
    assert labels(html) == ["← founded_by 0.93", "headquartered_in 0.50 →"]
    assert html.count("<tr>") == 3
    assert "Steve Jobs founded Apple in Cupertino.</td>" in html
    assert "Tim Cook runs it.</td>" not in html
    assert "background: #7aecec" in html  # displaCy's colour of ORG
    assert "<!DOCTYPE" not in html
    assert tags(html).count("svg") == 1


def test_page_is_whole_and_asks_for_nothing_from_the_network(doc):
    doc._.relations = [(doc.ents[1], "founded_by", doc.ents[0], 0.9)]
    html = view.render(doc, page=True)
    assert html.lstrip().startswith("<!DOCTYPE html>")
    assert {"html", "head", "body"} <= set(tags(html))
    assert "script" not in tags(html)
    assert "link" not in tags(html)
    assert set(re.findall(r"https?://[^\"]+", html)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert "prefers-color-scheme: dark" in html


def test_every_arc_of_one_pair_is_visible(doc):
    jobs, apple = doc.ents[:2]
    # The same label and score both ways: nothing but the direction tells these two arcs apart.
    doc._.relations = [(jobs, "knows", apple, 0.5), (apple, "knows", jobs, 0.5), (jobs, "likes", apple, 0.5)]
    paths = arcs(view.render(doc))
    assert len(paths) == len(set(paths)) == 3
    heights = {re.search(r"C[\d.]+,([\d.]+)", path).group(1) for path in paths}
    assert len(heights) == 3


def test_same_picture_every_time(doc):
    doc._.relations = [(a, "r", b, 0.5) for a in doc.ents for b in doc.ents if a != b]
    assert view.render(doc) == view.render(doc)


def test_ids_of_two_pictures_differ(doc):
    doc._.relations = [(doc.ents[0], "r", doc.ents[1], 0.5)]
    other = Doc(doc.vocab, words=["A", "B"])
    other._.relations = [((0, 1), "r", (1, 2), 0.5)]
    ids = re.findall(r'<svg[^>]* id="([^"]+)"', view.render([doc, other]))
    assert len(set(ids)) == 2


def test_arc_is_longer_than_its_label(nlp):
    doc = nlp("A B")
    doc._.relations = [((0, 1), "a_relation_with_a_very_long_name", (1, 2), 0.5)]
    (path,) = arcs(view.render(doc))
    start, end = float(re.match(r"M([\d.]+)", path).group(1)), float(re.search(r"([\d.]+),[\d.]+$", path).group(1))
    assert end - start > 7 * len("a_relation_with_a_very_long_name 0.50")


def test_markup_in_text_label_and_type_is_escaped(nlp):
    doc = nlp("<script>alert(1)</script> & <b>Paris</b>")
    doc.ents = [Span(doc, 0, 2, label="<u>ORG</u>"), Span(doc, len(doc) - 3, len(doc), label="A&B")]
    doc._.relations = [(doc.ents[0], '<i onload="x">in</i>', doc.ents[1], 0.7)]
    doc.user_data["title"] = "<s>title</s>"
    found = tags(view.render(doc, page=True, options={"colors": {"A&B": "#123456"}}))
    assert not {"script", "b", "u", "s"} & set(found)
    assert found.count("i") == 1  # the score's bar
    assert "#123456" in view.render(doc, options={"colors": {"A&B": "#123456"}})


def test_relation_across_sentences_joins_them(doc):
    doc._.relations = [(doc.ents[1], "chief_executive", doc.ents[3], 0.6), (doc.ents[1], "r", doc.ents[0], 0.6)]
    html = view.render(doc)
    assert tags(html).count("svg") == 1
    assert len(arcs(html)) == 2
    far = view.render(doc, options={"max_sentences": 1})
    assert len(arcs(far)) == 1
    assert "chief_executive" in far  # in the table


def test_sentence_each_its_picture(nlp):
    doc = nlp("Ann met Bob. Nothing here. Cid met Dan.")
    doc._.relations = [((0, 1), "r", (2, 3), 0.5), ((7, 8), "r", (9, 10), 0.5)]
    assert tags(view.render(doc)).count("svg") == 2


def test_long_gaps_are_left_out(nlp):
    doc = nlp("A " + "very " * 500 + "B")
    doc._.relations = [((0, 1), "r", (len(doc) - 1, len(doc)), 0.5)]
    html = view.render(doc)
    assert "… 476 words …" in html
    assert html.count("displacy-word") < 40


def test_filters(doc):
    jobs, apple, cupertino, _ = doc.ents
    doc._.relations = [(apple, "founded_by", jobs, 0.9), (apple, "located", cupertino, 0.3)]
    assert labels(view.render(doc, min_score=0.5)) == ["← founded_by 0.90"]
    assert labels(view.render(doc, labels=["located"])) == ["located 0.30 →"]
    assert "No relations." in view.render(doc, min_score=0.95)


@pytest.mark.parametrize("text", ["", "  \n ", "Nothing to see here."])
def test_docs_without_anything_to_draw(nlp, text):
    html = view.render(nlp(text), page=True)
    assert "No relations." in html
    assert "svg" not in tags(html)


def test_no_docs():
    assert "<body>" in view.render([], page=True)


def test_without_sentence_boundaries():
    doc = Doc(spacy.blank("en").vocab, words=["A", "b", "C", ".", "D"])
    doc._.relations = [((0, 1), "r", (4, 5), 0.5)]
    assert len(arcs(view.render(doc))) == 1


def test_overlapping_mentions_are_in_the_table_only(nlp):
    doc = nlp("University of California campus")
    doc._.relations = [((0, 3), "in", (2, 3), 0.5), ((0, 3), "has", (3, 4), 0.5)]
    html = view.render(doc)
    assert labels(html) == ["has 0.50 →"]
    assert html.count("<tr>") == 3


def test_right_to_left_is_mirrored():
    doc = spacy.blank("ar")("أسس ستيف شركة أبل")
    doc._.relations = [((3, 4), "founded_by", (1, 2), 0.5)]
    html = view.render(doc)
    assert labels(html) == ["founded_by 0.50 →"]
    assert 'dir="rtl"' in html


def test_many_documents_have_headings(doc, nlp):
    doc.user_data["title"] = "One & only"
    html = view.render([doc, nlp("Two.")])
    assert re.findall(r"<h2>([^<]+)", html) == ["One &amp; only", "Document 2"]


def test_save(doc, tmp_path):
    path = view.save(iter([doc]), tmp_path / "new" / "picture.html")
    assert path.read_text("utf8").lstrip().startswith("<!DOCTYPE html>")


def test_notebook_shows_the_value(doc):
    html = view.render(doc)
    assert html._repr_html_() == html
    assert len(repr(html)) < 80  # what a console shows


def test_not_a_doc():
    with pytest.raises(DataError, match="Expected a spaCy Doc"):
        view.render(["text"])


def test_a_long_text_without_sentences_is_not_repeated_for_every_relation():
    doc = Doc(spacy.blank("en").vocab, words=["word"] * 4000)
    doc._.relations = [((i, i + 1), "knows", (i + 20, i + 21)) for i in range(0, 3800, 20)]
    table = view.render(doc).partition("<table")[2]
    assert table.count("knows") == 190
    assert len(table) < 10 * len(doc.text)
