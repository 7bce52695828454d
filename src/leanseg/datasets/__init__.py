"""Datasets: cases of files or arrays, the layouts that people have, splits, a synthetic phantom."""

import lazy_loader

# Loaded when they are first used: predicting reads scans, and converts and draws none.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
