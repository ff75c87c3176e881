"""Active learning by looking ahead: what a label would change, by the linearised network."""

from ._query import LookaheadQuery, lookahead_predict, lookahead_scores

__all__ = ["LookaheadQuery", "lookahead_predict", "lookahead_scores"]
