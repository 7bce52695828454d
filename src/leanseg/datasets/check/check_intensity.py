"""Checks of grey values: finite, not constant, and Hounsfield units where the channel is a CT."""

from __future__ import annotations

from collections.abc import Iterator

from leanseg.datasets.check.facts import CaseFacts, ChannelFacts, Survey, is_ct
from leanseg.datasets.check.findings import Found, case_check

# No CT has so narrow a range: scaled to 0..1, -1..1, or to a standard deviation of 1.
NARROWEST_HU = 30.0
# In unsigned CT soft tissue lies at 1024 and above, bone well above.
UNSIGNED_P99 = 900.0
# Scanners store nothing below -1024, but padding outside of the scan circle.
PADDING_BELOW_HU = -1500.0


@case_check("voxels-not-finite")
def not_finite(case: CaseFacts, survey: Survey) -> Iterator[Found]:
    """NaN and infinite voxels."""
    counts = {
        "NaN": sum(channel.n_nan for channel in case.channels),
        "infinite": sum(channel.n_infinite for channel in case.channels),
    }
    listed = " and ".join(f"{n} {what}" for what, n in counts.items() if n)
    if listed:
        yield Found(f"{case.images[0].path}: {listed} voxels", counts)


@case_check("voxels-constant")
def constant(case: CaseFacts, survey: Survey) -> Iterator[Found]:
    """Channels with one value throughout."""
    for n, channel in enumerate(case.channels):
        if channel.low == channel.high:
            yield Found(f"{survey.channel(n)} of {case.name} is {channel.low:g} everywhere")


@case_check("intensity-not-hu")
def not_hounsfield(case: CaseFacts, survey: Survey) -> Iterator[Found]:
    """Channels called CT whose values cannot be Hounsfield units."""
    for name, channel in _ct_channels(case, survey):
        reason = _not_hu(channel)
        if reason is not None:
            limits = f"{channel.low:g} to {channel.high:g}"
            message = f"{name} of {case.name} runs from {limits}: {reason}"
            yield Found(message, {"reason": reason, "min": channel.low, "max": channel.high})


@case_check("intensity-padding")
def padding(case: CaseFacts, survey: Survey) -> Iterator[Found]:
    """CT with values far below air."""
    for name, channel in _ct_channels(case, survey):
        if channel.low <= PADDING_BELOW_HU and _not_hu(channel) is None:
            yield Found(f"{name} of {case.name} goes down to {channel.low:g}")


def _ct_channels(case: CaseFacts, survey: Survey) -> Iterator[tuple[str, ChannelFacts]]:
    named = ((survey.channel(n), channel) for n, channel in enumerate(case.channels))
    return ((name, channel) for name, channel in named if is_ct(name))


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
