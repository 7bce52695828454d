"""Evaluation: metrics with named definitions, scores per case, summaries, comparisons."""

import lazy_loader

# Loaded when they are first used: predicting needs two small modules, not the statistics.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
