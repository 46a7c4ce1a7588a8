"""Token ids in, label scores out: the part of spacy-relx that has never heard of a Doc. It imports no spaCy."""
