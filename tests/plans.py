"""Plans of one network, as tests need them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from leanseg.plan import Around, Axis, Frame, Intensity, NoWindow, Patch, Plan, Scout, Stage


def _plan(frame: Frame, patch: Patch, labels: Sequence[str] | int, **options: Any) -> Plan:
    """Options are those of a stage, of its intensity, and `channels`, `around` a scout."""
    if isinstance(labels, int):
        labels = [f"organ {n}" for n in range(1, labels + 1)]
    channels, finds = options.pop("channels", ("CT",)), options.pop("around", None)
    window, scaling = options.pop("window", NoWindow()), options.pop("scaling", "minmax")
    levels = options.pop("levels", None)
    scouts: tuple[Scout, ...] = ()
    if finds:
        scouts = (Scout(name="scout", finds=finds),)
        frame = frame.model_copy(update={"region": Around(stage="scout")})
    stage = Stage(
        labels=tuple(labels),
        frame=frame,
        patch=patch,
        intensity=Intensity(window=window, scaling=scaling, levels=levels),
        **options,
    )
    return Plan(channels=channels, stages=(*scouts, stage))


def slices(
    shape: tuple[int, int] = (32, 32),
    labels: Sequence[str] | int = ("organ",),
    *,
    orientation: str = "LPS",
    neighbours: int = 0,
    **options: Any,
) -> Plan:
    """A 2-D network that sees whole slices, resized."""
    axes = (Axis(size=shape[0]), Axis(size=shape[1]), Axis())
    patch = Patch("whole", "whole", 1, neighbours=neighbours)
    return _plan(Frame(orientation=orientation, axes=axes), patch, labels, **options)


def patches(
    shape: tuple[int, int, int],
    labels: Sequence[str] | int = ("organ",),
    *,
    spacing_mm: tuple[float, float, float] | None = None,
    overlap: float = 0.5,
    orientation: str = "LPS",
    **options: Any,
) -> Plan:
    """A network that sees overlapping patches of the scan, or of the scan in another spacing."""
    axes = tuple(Axis(spacing_mm=mm) for mm in spacing_mm or (None, None, None))
    frame = Frame(orientation=orientation, axes=axes)
    return _plan(frame, Patch(shape=shape, overlap=overlap), labels, **options)


def interleaved(
    shape: tuple[int, int, int],
    labels: Sequence[str] | int = ("organ",),
    *,
    frame: tuple[int | None, int | None, int | None] = (None, None, None),
    overlap: float = 0.5,
    **options: Any,
) -> Plan:
    """A 3-D network whose patches have slices from all over the scan."""
    axes = tuple(Axis(size=n) for n in frame)
    patch = Patch(shape=shape, overlap=overlap, slices="interleaved")
    return _plan(Frame(axes=axes), patch, labels, **options)


def whole(
    shape: tuple[int, int, int],
    labels: Sequence[str] | int = ("organ",),
    *,
    orientation: str = "LPS",
    **options: Any,
) -> Plan:
    """A 3-D network that sees the whole scan, or what a scout finds, resized to one shape."""
    axes = tuple(Axis(size=n) for n in shape)
    frame = Frame(orientation=orientation, axes=axes, antialias=False)
    return _plan(frame, Patch("whole", "whole", "whole"), labels, **options)
