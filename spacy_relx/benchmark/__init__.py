"""How fast a model answers, against what people write without this package and against what the machine can do.

Used by `python -m spacy relx benchmark` and by the scripts in the repository's `benchmarks/`. Nothing but `component`
needs spaCy. No module here says what is fast enough; they measure.
"""
