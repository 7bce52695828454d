"""Segmentation networks: tensors in, logits out."""

from leanseg.networks.registry import NETWORKS, ParameterCount, build, count_parameters

__all__ = ["NETWORKS", "ParameterCount", "build", "count_parameters"]
