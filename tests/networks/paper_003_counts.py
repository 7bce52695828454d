"""Parameters of paper 003's networks, counted from the specification's words alone.

For one input and one output channel; a convolution has a bias, a normalisation two numbers a
channel, f is the number of filters at full resolution.
"""

from __future__ import annotations

from itertools import pairwise


def convolution(kernel: int, given: int, made: int) -> int:
    return kernel**2 * given * made + made


def normalised(kernel: int, given: int, made: int) -> int:
    return convolution(kernel, given, made) + 2 * made


def path(kernel: int, given: int, made: int) -> int:
    return normalised(kernel, given, made) + normalised(3, made, made)


def two_scales(given: int, made: int) -> int:
    return path(1, given, made) + path(5, given, made)


def encoders(f: int) -> int:
    """Both, and the centre."""
    count = path(3, 1, f) + two_scales(1, f) + path(3, 8 * f, 16 * f) + two_scales(16 * f, 16 * f)
    for given, made in ((f, 2 * f), (2 * f, 4 * f), (4 * f, 8 * f)):
        count += path(3, given, made) + two_scales(2 * given, made)
    return count


def decoder(f: int, below: int) -> int:
    """Transposed 2x2 convolutions, and two of 3x3 behind the skips of C and 2 C channels."""
    return sum(
        convolution(2, given, made) + normalised(3, 2 * made, made) + normalised(3, 3 * made, made)
        for given, made in pairwise((below, 8 * f, 4 * f, 2 * f, f))
    )


def exploration(channels: int) -> int:
    quarter = channels // 4
    branches = sum(
        normalised(1, channels, quarter)
        + normalised(kernel, quarter, quarter)
        + normalised(3, quarter, quarter)
        for kernel in (1, 3, 5, 7)
    )
    return branches + normalised(1, channels, channels)


def localisation(channels: int) -> int:
    projections = 2 * convolution(1, channels, channels // 8) + convolution(1, channels, channels)
    return 2 + projections + convolution(7, channels, 1)


def focusing(channels: int, coarse: int, steps: int) -> int:
    """With one step, or both: each an exploration, a scalar and a normalisation."""
    each = exploration(channels) + 1 + 2 * channels
    return normalised(7, coarse, channels) + steps * each + convolution(7, channels, 1)


def multiscale(f: int) -> int:
    return encoders(f) + decoder(f, 48 * f) + convolution(1, f, 1)


def localised(f: int) -> int:
    reduced = normalised(3, 48 * f, 8 * f)
    head = convolution(1, f, 1)
    return encoders(f) + reduced + localisation(8 * f) + decoder(f, 8 * f) + head


def tumour(f: int, *, features: str = "decoder", steps: int = 2) -> int:
    levels = (8 * f, 4 * f, 2 * f, f)
    count = encoders(f)
    if features == "decoder":
        count += decoder(f, 48 * f)
    else:
        levels = tuple(3 * level for level in levels)
    widths = (8 * f, 4 * f, 2 * f, f, f // 2)
    count += sum(normalised(3, *each) for each in zip((48 * f, *levels), widths, strict=True))
    fine = sum(focusing(made, given, steps) for given, made in pairwise(widths))
    return count + localisation(widths[0]) + fine
