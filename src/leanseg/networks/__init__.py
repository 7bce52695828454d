"""Segmentation networks: tensors in, logits out."""

from leanseg.networks.registry import (
    NETWORKS,
    ParameterCount,
    build,
    build_trusted,
    count_parameters,
)

__all__ = ["NETWORKS", "ParameterCount", "build", "build_trusted", "count_parameters"]
