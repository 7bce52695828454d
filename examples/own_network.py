"""A network of your own in ten lines: trained, exported, and run without PyTorch.

    PYTHONPATH=examples python examples/own_network.py

Minutes on one core; `--steps 2` takes seconds. The recipe names the class below by its import path.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from torch import nn

import leanseg


class TwoScales(nn.Module):
    """Full resolution, and a quarter of it for context."""

    def __init__(self, in_channels: int, out_channels: int, width: int = 16) -> None:
        super().__init__()
        self.near = nn.Conv2d(in_channels, width, 5, padding=2)
        self.far = nn.Conv2d(in_channels, width, 5, padding=2, stride=4)
        self.head = nn.Conv2d(2 * width, out_channels, 3, padding=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (B, C, H, W) to logits (B, K, H, W)."""
        near, far = self.near(images).relu(), self.far(images).relu()
        far = nn.functional.interpolate(far, size=near.shape[2:], mode="bilinear")
        return self.head(torch.cat([near, far], dim=1))


RECIPE = {
    "name": "two-scales",
    "data": {"labels": {"liver": [1]}},
    "network": {"name": "own_network:TwoScales", "options": {"width": 8}},
    "plan": {"frame": {"axes": [96, 96, None]}},
    "training": {"threads": 1, "precision": "32"},
}


def main(folder: Path, steps: int) -> float:
    """Train on phantoms; the Dice of the liver on one that was not seen."""
    data = leanseg.phantom(folder / "phantoms", 8, size=96, slices=40)
    phases = [
        {
            "loss": [{"name": "dice"}, {"name": "cross-entropy"}],
            "optimiser": {"name": "AdamW", "options": {"lr": 1e-2}},
            "schedule": {"name": "cosine", "warmup": 0.05},
            "batch_size": 8,
            "steps": steps,
            "epochs": None,
            "steps_per_epoch": 50,
        }
    ]
    recipe = leanseg.Recipe.model_validate(RECIPE | {"phases": phases})
    run = leanseg.train(data, recipe, output=folder / "run")
    model = leanseg.load_model(run.model_files[0], engine="openvino")  # without PyTorch
    (unseen,) = leanseg.phantom(folder / "unseen", 1, size=96, slices=40, seed=1)
    scores = leanseg.evaluate(model.predict(unseen.image), unseen.label, {"liver": 1})
    return scores["liver"].dice


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("own-network"))
    parser.add_argument("--steps", type=int, default=300)
    given = parser.parse_args()
    print(f"Dice of the liver: {main(given.folder, given.steps):.3f}")
