"""Checks of grey values: finite, not constant, and Hounsfield units where the channel is a CT."""

from __future__ import annotations

from collections.abc import Iterator

from leanseg.datasets.audit.facts import ChannelFacts, Survey
from leanseg.datasets.audit.findings import Finding
from leanseg.datasets.audit.reading import is_ct

# No CT has so narrow a range: scaled to 0..1, -1..1, or to a standard deviation of 1.
NARROWEST_HU = 30.0
# In unsigned CT soft tissue lies at 1024 and above, bone well above.
UNSIGNED_P99 = 900.0
# Scanners store nothing below -1024, but padding outside of the scan circle.
PADDING_BELOW_HU = -1500.0


def not_finite(survey: Survey) -> Iterator[Finding]:
    """NaN and infinite voxels."""
    for case in survey.cases:
        n_nan = sum(channel.n_nan for channel in case.channels)
        n_infinite = sum(channel.n_infinite for channel in case.channels)
        if n_nan or n_infinite:
            found = " and ".join(
                f"{n} {name}" for n, name in ((n_nan, "NaN"), (n_infinite, "infinite")) if n
            )
            path = case.image.path if case.image else case.name
            details = {"nan": n_nan, "infinite": n_infinite}
            yield Finding(
                case.name, "voxels-not-finite", "error", f"{path}: {found} voxels", details
            )


def constant(survey: Survey) -> Iterator[Finding]:
    """Channels with one value throughout."""
    for case in survey.cases:
        for n, channel in enumerate(case.channels):
            if channel.low == channel.high:
                message = f"{_channel(survey, n)} of {case.name} is {channel.low:g} everywhere"
                yield Finding(case.name, "voxels-constant", "error", message)


def not_hounsfield(survey: Survey) -> Iterator[Finding]:
    """Channels called CT whose values cannot be Hounsfield units."""
    for case in survey.cases:
        for n, channel in enumerate(case.channels):
            reason = _not_hu(channel) if is_ct(_channel(survey, n)) else None
            if reason is not None:
                message = (
                    f"{_channel(survey, n)} of {case.name} runs from {channel.low:g} to "
                    f"{channel.high:g}: {reason}"
                )
                details = {"reason": reason, "min": channel.low, "max": channel.high}
                yield Finding(case.name, "intensity-not-hu", "warning", message, details)


def padding(survey: Survey) -> Iterator[Finding]:
    """CT with values far below air."""
    for case in survey.cases:
        for n, channel in enumerate(case.channels):
            if not is_ct(_channel(survey, n)) or _not_hu(channel) is not None:
                continue
            if channel.low <= PADDING_BELOW_HU:
                message = f"{_channel(survey, n)} of {case.name} goes down to {channel.low:g}"
                yield Finding(case.name, "intensity-padding", "note", message)


def _not_hu(channel: ChannelFacts) -> str | None:
    """Why grey values are not Hounsfield units, in a few words."""
    low, high = channel.low, channel.high
    if not low < high:
        return None
    if high - low <= NARROWEST_HU:
        return "scaled to a narrow range"
    if channel.p99 < 0:
        return "shifted down, soft tissue is below 0"
    if low < 0:
        return None
    if high <= 255:
        return "scaled to 0..255"
    if channel.p99 >= UNSIGNED_P99:
        return "unsigned, probably offset by 1024"
    return "without a negative value, fat and air are missing"


def _channel(survey: Survey, n: int) -> str:
    return survey.channels[n] if n < len(survey.channels) else f"channel {n}"
