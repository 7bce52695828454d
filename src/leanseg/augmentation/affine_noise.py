"""Random numbers on all entries of an affine matrix (paper 004)."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn.functional import affine_grid, grid_sample

from leanseg.augmentation.base import PerSample
from leanseg.registry import NotNegative


class AffineNoise(PerSample):
    """Sample by theta = [I | 0] + sigma N(0, 1), each of its twelve numbers drawn by itself.

    theta maps the output's coordinates to the input's, both in [-1, 1] from the centre of the
    first voxel to the centre of the last (`align_corners=True`). The image is interpolated
    linearly and continued by its border's values; the label takes the nearest voxel, and
    background (0) beyond the border. A slice is moved by six numbers.

    Source: paper 004's code (mattiaspaul/OBELISK, `utils.py`, `augmentAffine`). The function's
    own default is 0.05; training calls it with 0.075.

    Args:
        sigma: Standard deviation of what is added to theta.
    """

    def __init__(self, *, sigma: NotNegative = 0.075) -> None:
        super().__init__(probability=float(sigma > 0))
        self.sigma = sigma

    def change(
        self, image: torch.Tensor, label: torch.Tensor, generator: np.random.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Image and label under a random matrix."""
        n = label.ndim
        noise = generator.standard_normal((3, 4))[:n, [*range(n), 3]]
        theta = torch.from_numpy(np.eye(n, n + 1) + self.sigma * noise).to(image)
        grid = affine_grid(theta[None], [1, 1, *label.shape], align_corners=True)
        moved = grid_sample(image[None], grid, padding_mode="border", align_corners=True)
        classes = label[None, None].to(grid.dtype)
        new_label = grid_sample(classes, grid, mode="nearest", align_corners=True)[0, 0]
        return moved[0], new_label.to(label.dtype)
