"""Engines: what runs the network, behind one small interface."""

from leanseg.inference.engines.base import ENGINES, PRECISIONS, Engine, make_engine
from leanseg.inference.engines.openvino_import import forbid_telemetry

__all__ = ["ENGINES", "PRECISIONS", "Engine", "make_engine"]

forbid_telemetry()
