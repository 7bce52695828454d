"""Sparse deformable sampling on the processor, in numpy: what networks and engines share."""

from leanseg.sampling.convolution import sample_and_convolve, spanning_grid

__all__ = ["sample_and_convolve", "spanning_grid"]
