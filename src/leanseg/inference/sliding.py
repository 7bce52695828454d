"""Any network on a whole scan: patches laid, blended and brought back to the scan's grid."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from leanseg.frames.view import Scan
from leanseg.inference.pipeline import Pipeline
from leanseg.plan import Frame, Intensity, LinearScaling, NoWindow, Patch, Plan, Stage
from leanseg.volumes import Volume

if TYPE_CHECKING:
    from torch import nn

_AS_IT_IS = Intensity(window=NoWindow(), scaling=LinearScaling(divide_by=1, add=0))


def sliding_window(
    module: nn.Module,
    scan: Scan,
    frame: Frame,
    patch: Patch,
    intensity: Intensity = _AS_IT_IS,
    *,
    device: str = "cpu",
) -> Volume:
    """Probabilities of a PyTorch module on a scan's own grid, by overlapping patches.

    Patches lie as in MONAI's `sliding_window_inference` and are blended with the same Gaussian;
    memory goes with a window of planes as deep as a patch, not with the scan, unless slices are
    interleaved.

    Args:
        module: From (1, channel, *patch) to logits (1, output, *patch): one output for a sigmoid,
            several for a softmax.
        scan: In any orientation and of any size.
        frame: The grid that patches are cut from, over the whole scan.
        patch: What the module sees at once; its slices may be interleaved.
        intensity: What happens to grey values before; by default nothing.
        device: Where the module runs, such as "cuda".

    Returns:
        A volume (i, j, k, output), float32, with the scan's affine.

    Raises:
        GeometryError: If the frame would have absurdly many voxels.
        ValueError: If frame and patch do not fit together.

    Example:
        >>> scan = leanseg.Volume(np.zeros((20, 20, 10), np.float32), np.eye(4))
        >>> frame = leanseg.Frame(orientation="RAS", axes=(None, None, None))
        >>> module = torch.nn.Conv3d(1, 2, 3, padding=1)
        >>> leanseg.sliding_window(module, scan, frame, leanseg.Patch(16, 16, 8)).array.shape
        (20, 20, 10, 2)
    """
    import torch

    from leanseg.inference.engines.torch_engine import TorchEngine

    channels = tuple(f"channel {n}" for n in range(scan.n_channels))
    # How many outputs there are the module itself tells.
    trial = Stage(labels=("1",), frame=frame, patch=patch, intensity=intensity)
    shape = (1, trial.in_channels(len(channels)), *trial.network_shape)
    with torch.inference_mode():
        n_outputs = int(module.to(device)(torch.zeros(shape, device=device)).shape[1])
    labels = tuple(str(n) for n in range(1, max(n_outputs, 2)))
    stage = trial.model_copy(update={"labels": labels})
    plan = Plan(channels=channels, stages=(stage,))
    # A softmax over two outputs is a sigmoid of their difference, and a plan with one label.
    hook = module.register_forward_hook(
        lambda _, __, out: out[:, 1:] - out[:, :1] if n_outputs == 2 else out
    )
    engine = TorchEngine(module, shape, device=device)
    # The engine has a copy of the module.
    hook.remove()
    found = (
        Pipeline(plan, {stage.name: engine})
        .predict(scan, probabilities=np.dtype(np.float32))
        .probabilities
    )
    assert found is not None
    if n_outputs == 2:
        return found.with_array(np.concatenate([1 - found.array, found.array], axis=-1))
    return found
