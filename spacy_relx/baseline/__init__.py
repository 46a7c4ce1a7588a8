"""A discriminative baseline: typed entity markers around a pair, any encoder, and a classification head on top.

It is trained on Docs with gold relations and gives the same records as an evaluation of the component, so that both are
scored alike. Nothing here takes part in the component's predictions.
"""

from spacy_relx.baseline.run import Baseline, Recipe, run_baseline

__all__ = ["Baseline", "Recipe", "run_baseline"]
