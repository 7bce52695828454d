"""Segmentation networks: tensors in, logits out.

Example:
    >>> network = leanseg.networks.build("monet", in_channels=1, out_channels=1)
    >>> leanseg.networks.count_parameters(network).keras_total
    403556
"""

from leanseg.networks.registry import (
    NETWORKS,
    ParameterCount,
    build,
    build_trusted,
    count_parameters,
)

__all__ = ["NETWORKS", "ParameterCount", "build", "build_trusted", "count_parameters"]
