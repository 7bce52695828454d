"""What a recipe makes of scans before the network sees them: samples as they are, and augmented."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from leanseg.datasets import Dataset
from leanseg.errors import DatasetError, LeansegError
from leanseg.files import written_whole
from leanseg.frames import ArrayCache, CasePreparer, PreparedCase
from leanseg.plan import Stage
from leanseg.reports.overlay import Plane, Scene, SliceView, draw_slice, label_colours
from leanseg.reports.page import png_address, render
from leanseg.reports.plots import INK, MUTED
from leanseg.training.data import select_data
from leanseg.training.recipe import Phase, Recipe
from leanseg.training.seeds import Role, derive_seed
from leanseg.volumes import Volume

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from leanseg.augmentation import Augmentation
    from leanseg.training.samplers.base import Sample, Sampler

SUFFIXES: Final = (".png", ".html")
_DPI: Final = 130
# Beside the one that is not augmented.
_AUGMENTED: Final = 4
# Among so many places of a case the ones with most of a label are shown.
_CANDIDATES: Final = 16
# Among so many seeds there is one that no fraction short of 1 augments.
_SEEDS: Final = 256
_PANEL_INCH: Final = 2.5
_LETTERS_PER_LINE: Final = 42
_PLANES: Final[dict[str, Plane]] = {"R": "sagittal", "A": "coronal", "S": "axial"}
_OPPOSITE: Final = {"L": "R", "P": "A", "I": "S"}


@dataclass(frozen=True)
class Panel:
    """One picture.

    Attributes:
        image: A slice of a sample, (i, j), in the units that the network sees.
        classes: Its class map, (i, j).
        told: What was done to it.
    """

    image: NDArray[np.float32]
    classes: NDArray[Any]
    told: str


@dataclass(frozen=True)
class Sheet:
    """Samples of a recipe.

    Attributes:
        title: Recipe, data and phase.
        subtitle: Sampler and augmentations, in their order.
        orientation: Axis codes of the frame.
        labels: In the order of their classes, from 1.
        rows: One sample each: as it is, then augmented.
    """

    title: str
    subtitle: str
    orientation: str
    labels: tuple[str, ...]
    rows: tuple[tuple[Panel, ...], ...]


def draw_samples(
    recipe: Recipe,
    dataset: Dataset,
    n_rows: int,
    seed: int,
    on_case: Callable[[str], None] = lambda _: None,
) -> Sheet:
    """Samples as the first phase of a recipe draws them, each as it is and under other seeds.

    Each row is a sample of another case with a label, in random order, as long as there are
    cases; of several places of a case those with most of a label.

    Args:
        recipe: What to do.
        dataset: Where the cases are from, whatever part of the split they are in.
        n_rows: At most so many samples.
        seed: Of all that is drawn.
        on_case: Called with the name of each case that is looked at.

    Raises:
        DatasetError: If no case has a voxel of a label.
        RecipeError: If the recipe does not fit the data, or a name or value is not known.
    """
    from leanseg.augmentation import build_augmentation
    from leanseg.training.samplers.registry import build_sampler

    phase = recipe.phases[0]
    data = select_data(dataset.read_as(recipe.data.geometry), recipe)
    plan = data.plan(recipe)

    def sampler_of(cases: Sequence[PreparedCase]) -> Sampler:
        options = phase.sampler.options
        return build_sampler(phase.sampler.name, cases, plan.final, seed, **options)

    augmentations = [(a.name, build_augmentation(a.name, **a.options)) for a in phase.augmentation]
    # What is wrong with its options is said before a scan is read.
    sampler_of([])
    rows: list[tuple[Panel, ...]] = []
    with TemporaryDirectory() as folder:
        cache = ArrayCache(Path(folder))
        # Of all cases, as no split says which of them train.
        plan = data.settled(plan, [case.name for case in data.cases], recipe.training.seed, cache)
        preparer = CasePreparer(
            plan,
            data.label_values,
            data.channel_indices,
            cache,
            data.annotated,
            data.ignored_values,
        )
        found: list[tuple[str, Sampler, list[Sample]]] = []
        for number in np.random.default_rng(seed).permutation(len(data.cases)):
            case = preparer.prepare(data.cases[number])
            on_case(case.name)
            if case.labelled_slices.any():
                sampler = sampler_of([case])
                # One that wants certain labels may have nothing of this case.
                if sampler.n_samples:
                    found.append((case.name, sampler, _places(sampler, seed)))
            if len(found) == n_rows:
                break
        for number in range(n_rows if found else 0):
            name, sampler, places = found[number % len(found)]
            if number // len(found) < len(places):
                sample = places[number // len(found)]
                row = _Row(plan.final, len(plan.channels), sampler, augmentations)
                rows.append(row.panels(sample, name, derive_seed(seed, Role.AUGMENTATION, number)))
    if not rows:
        raise DatasetError(
            f"{data.root}: no case has a voxel of {', '.join(plan.labels)}; correct the label "
            "maps, or 'data.labels'"
        )
    channel = f", channel {plan.channels[0]}" if len(plan.channels) > 1 else ""
    return Sheet(
        f"{recipe.name} on {data.name}{channel}",
        _subtitle(phase),
        plan.final.frame.orientation,
        plan.labels,
        tuple(rows),
    )


def _subtitle(phase: Phase) -> str:
    names = ", ".join(each.name for each in phase.augmentation) or "none"
    return f"phase {phase.name}; sampler: {phase.sampler.name}; augmentation: {names}"


def _places(sampler: Sampler, seed: int) -> list[Sample]:
    """Different samples of the first case, those with most of a label first; not augmented."""
    drawn = [sample for (sample,) in sampler.epoch(0, _CANDIDATES, 1)]
    plain = _plain_seed(seed)
    different = {sample.start: replace(sample, seed=plain) for sample in drawn}.values()
    return sorted(different, key=lambda sample: -int((sampler.read(sample)[1] > 0).sum()))


def _plain_seed(seed: int) -> int:
    from leanseg.augmentation.base import rank

    return max((derive_seed(seed, Role.AUGMENTATION, n) for n in range(_SEEDS)), key=rank)


@dataclass(frozen=True)
class _Row:
    stage: Stage
    n_channels: int
    sampler: Sampler
    augmentations: Sequence[tuple[str, Augmentation]]

    def panels(self, sample: Sample, name: str, seed: int) -> tuple[Panel, ...]:
        """A sample as it is, and augmented by other seeds."""
        plain = self._panel(sample, (), name)
        # A sampler may change what it reads, too.
        if not self.augmentations and not self._told(replace(sample, seed=seed)):
            return (plain,)
        seeds = [derive_seed(seed, Role.AUGMENTATION, number) for number in range(_AUGMENTED)]
        return plain, *(self._panel(replace(sample, seed=n), self.augmentations) for n in seeds)

    def _told(self, sample: Sample) -> str:
        from leanseg.training.samplers.base import Describes

        return self.sampler.describe(sample) if isinstance(self.sampler, Describes) else ""

    def _panel(
        self, sample: Sample, augmentations: Sequence[tuple[str, Augmentation]], name: str = ""
    ) -> Panel:
        import torch

        from leanseg.augmentation.registry import Describes

        read = [torch.from_numpy(array)[None] for array in self.sampler.read(sample)]
        image, classes = read
        told = [self._told(sample)]
        for called, augmentation in augmentations:
            drawn = augmentation.draw([sample.seed])
            before = image, classes
            image, classes = augmentation.apply(image, classes, drawn)
            if isinstance(augmentation, Describes):
                told += augmentation.describe(drawn, tuple(classes.shape[1:]))
            elif not (torch.equal(image, before[0]) and torch.equal(classes, before[1])):
                told.append(called)
        words = "; ".join(each for each in told if each)
        # Of several channels the first; of neighbours the slice itself.
        channel = self.stage.patch.neighbours * self.n_channels
        shown, labels = image[0, channel].numpy(), classes[0].numpy()
        where = ""
        if self.stage.is_3d:
            k = _most_labelled(read[1][0].numpy())
            shown, labels = shown[..., k], labels[..., k]
            where = f", slice {k + 1} of {classes.shape[3]}"
        if name:
            words = f"{name}{where}: {words or 'as it is'}"
        return Panel(shown, labels, words or "not augmented")


def _most_labelled(classes: NDArray[Any]) -> int:
    """The slice (i, j, k) with most labelled voxels; of several the middle one."""
    counts = (classes > 0).sum(axis=(0, 1))
    best = np.flatnonzero(counts == counts.max())
    return int(best[len(best) // 2])


def samples_figure(sheet: Sheet) -> Figure:
    """The sheet as a grid: one row a sample, the grey values of a row all on one scale.

    Pixels are square, as the network sees them.
    """
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    n_columns = max(len(row) for row in sheet.rows)
    heights = [_height_inch(row) for row in sheet.rows]
    # A single picture leaves no room for the title.
    size = (max(_PANEL_INCH * n_columns, 6.0), sum(heights) + 0.9)
    figure = Figure(figsize=size, dpi=_DPI, layout="constrained")
    figure.suptitle(
        f"{sheet.title}\n{sheet.subtitle}",
        x=0.01,
        ha="left",
        fontsize=10,
        color=INK,
        linespacing=1.5,
    )
    panels = figure.subplots(len(sheet.rows), n_columns, squeeze=False, height_ratios=heights)
    for axes, row in zip(panels, sheet.rows, strict=True):
        window = _grey_window(row[0])
        for axis in axes[len(row) :]:
            axis.set_axis_off()
        for axis, panel in zip(axes, row, strict=False):
            _draw(axis, panel, sheet, window)
    _name_labels(figure, sheet.labels)
    for text in figure.findobj(Text):
        # A dollar in a case's name begins no formula.
        text.set_parse_math(False)
    return figure


def _grey_window(panel: Panel) -> tuple[float, float]:
    """Black and white of a row: bone may be white and air black, but nothing that has a label.

    With room at both ends, for augmented samples are darker or brighter.
    """
    inside = panel.image[panel.image > panel.image.min()]
    low, high = np.percentile(inside if inside.size else panel.image, (5, 95))
    labelled = panel.image[panel.classes > 0]
    if labelled.size:
        darkest, brightest = np.percentile(labelled, (1, 99))
        low, high = min(low, darkest), max(high, brightest)
    width = float(high - low) or 1.0
    return float(low) - 0.2 * width, float(high) + 0.3 * width


def _height_inch(row: Sequence[Panel]) -> float:
    across, down = row[0].image.shape
    n_lines = max(len(_lines(panel.told)) for panel in row)
    return min(max(_PANEL_INCH * down / across, 0.8), 2 * _PANEL_INCH) + 0.14 * n_lines + 0.1


def _lines(told: str) -> list[str]:
    return textwrap.wrap(told, _LETTERS_PER_LINE)


def _draw(axes: Axes, panel: Panel, sheet: Sheet, window: tuple[float, float]) -> None:
    affine = np.eye(4)
    for axis, code in enumerate(sheet.orientation):
        positive = _OPPOSITE.get(code, code)
        affine[:3, axis] = 0
        affine["RAS".index(positive), axis] = 1 if positive == code else -1
    volumes = (Volume(array[..., None], affine) for array in (panel.image, panel.classes))
    through = sheet.orientation[2]
    plane = _PLANES[_OPPOSITE.get(through, through)]
    draw_slice(
        axes,
        Scene.from_volumes(*volumes),
        SliceView(plane, 0),
        labels={label: number for number, label in enumerate(sheet.labels, start=1)},
        window=window,
        line_width=1.2,
    )
    axes.set_title("\n".join(_lines(panel.told)), fontsize=7.5, loc="left", color=INK)


def _name_labels(figure: Figure, labels: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    numbers = {label: number for number, label in enumerate(labels, start=1)}
    colours = [colour for _, colour, _ in label_colours(numbers)]
    figure.legend(
        handles=[Line2D([], [], color=colour, linewidth=2) for colour in colours],
        labels=list(labels),
        loc="outside lower left",
        ncols=min(len(labels), int(figure.get_figwidth() // 1.6)),
        fontsize=8,
        frameon=False,
        labelcolor=MUTED,
    )


def require_picture(path: Path) -> None:
    """Refuse a name of a file that is neither a picture nor a page.

    Raises:
        LeansegError: Naming the endings that there are.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise LeansegError(f"{path}: give a name that ends in {' or '.join(SUFFIXES)}")


def write_samples(path: Path, sheet: Sheet) -> None:
    """Write the sheet as a PNG file or, by the suffix, as an HTML page.

    Raises:
        LeansegError: If the suffix is another one.
    """
    require_picture(path)
    buffer = io.BytesIO()
    samples_figure(sheet).savefig(buffer, format="png", metadata={"Software": None})
    content = buffer.getvalue()
    if path.suffix.lower() == ".html":
        content = render("samples.html.j2", sheet=sheet, picture=png_address(content)).encode()
    with written_whole(path) as written:
        written.write_bytes(content)
