"""Paste a text, name labels, see relations: run this, and open the address that it prints. For this machine only."""

from functools import lru_cache
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qs

import spacy
from jinja2 import Environment
from markupsafe import Markup
from spacy.language import Language

from spacy_relx import RelxError, view

MAX_BYTES = 100_000
PAGE = Environment(autoescape=True).from_string("""<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>Relations</title>
<style>
* { box-sizing: border-box }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem }
label { display: block; margin: 1rem 0 } textarea, input { display: block; width: 100%; font: inherit }
button { font: inherit; margin-bottom: 1.5rem }</style>
<main><h1>Relations</h1><form method="post">
<label>Text<textarea name="text" rows="6" required>{{ text }}</textarea></label>
<label>Labels, with commas between them; none for the packaged ones<input name="labels" value="{{ labels }}"></label>
<button>Find relations</button></form>
{% if error %}<p role="alert">{{ error }}</p>{% endif %}{{ picture }}</main></html>""")


@lru_cache(maxsize=2)
def pipeline(labels: tuple[str, ...]) -> Language:
    """Return the pipeline for these labels; the last two are kept."""
    nlp = spacy.load("en_core_web_sm")
    nlp.add_pipe("llama_relation_extractor", config={"labels": list(labels) or None})
    return nlp


class Handler(BaseHTTPRequestHandler):
    """Answers with the form, and below it what was found."""

    def do_GET(self) -> None:
        """Show an empty form."""
        self.show(200, text="Ada Lovelace was born in London.", labels="born_in, works_for")

    def do_POST(self) -> None:
        """Show the relations of the text that was sent."""
        length = int(self.headers.get("Content-Length") or 0)
        if length > MAX_BYTES:
            self.show(413, error=f"The text is too long for this page: {length:,} bytes of at most {MAX_BYTES:,}.")
            return
        sent = parse_qs(self.rfile.read(length).decode("utf8", "replace"))
        text, labels = (sent.get(name, [""])[0] for name in ("text", "labels"))
        try:
            names = tuple(name.strip() for name in labels.split(",") if name.strip())
            self.show(200, text=text, labels=labels, picture=view.render(pipeline(names)(text)))
        except RelxError as error:
            self.show(400, text=text, labels=labels, error=str(error))

    def show(self, status: int, *, picture: str = "", **values: str) -> None:
        """Send the page."""
        body = PAGE.render(picture=Markup(picture), **values).encode("utf8", "replace")
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    print("http://127.0.0.1:8080")
    HTTPServer(("127.0.0.1", 8080), Handler).serve_forever()
