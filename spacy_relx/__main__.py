"""Runs the command line as `python -m spacy_relx`."""

from spacy_relx.cli import app

if __name__ == "__main__":
    app(prog_name="python -m spacy_relx")
