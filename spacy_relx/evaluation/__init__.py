"""Evaluation of relations: from Docs to answered pairs, from those to scores, tables and pictures.

Everything after the model works on stored `PairRecord`s, so that a score, a threshold or a report never needs the model
again.
"""
