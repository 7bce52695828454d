"""Engines: what runs the network, behind one small interface."""

from leanseg.inference.engines.base import ENGINES, PRECISIONS, Engine, make_engine

__all__ = ["ENGINES", "PRECISIONS", "Engine", "make_engine"]
