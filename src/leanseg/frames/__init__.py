"""Frames: a scan as networks see it, from any place, for training and prediction alike."""

import lazy_loader

# Loaded when they are first used: predicting needs no cache and no cases.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
