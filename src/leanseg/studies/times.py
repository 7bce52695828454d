"""Studies of times and sizes: networks as they start, nothing trained, no data needed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from leanseg.errors import require_package
from leanseg.evaluation.paired import holm
from leanseg.files import require_outputs, write_csv, write_text
from leanseg.machine import this_machine
from leanseg.studies.definition import PublishedTimes, TimesStudy

if TYPE_CHECKING:
    from leanseg.networks.base import SegmentationNetwork

TIMES_FILE, TABLE_FILE = "times.csv", "table.md"
CPU, GPU = "CPU", "GPU"


@dataclass(frozen=True)
class Times:
    """What was measured.

    Attributes:
        study: Of what.
        seconds: By device and row: of a scan of `images` slices on the processor, and of a
            training step of `batch` slices on a GPU where there is one; one a repetition.
        parameters: By row, as Keras counts.
        megabytes: By row: the weights in float32, MB of 1,048,576 bytes, as published.
    """

    study: TimesStudy
    seconds: Mapping[str, Mapping[str, list[float]]]
    parameters: Mapping[str, int]
    megabytes: Mapping[str, float]

    def cells(self) -> tuple[list[dict[str, str]], list[str]]:
        """Heading to text, of each row; and the footnotes."""
        study = self.study
        published = {each.row: each for each in study.published}
        notes: list[str] = []
        rows = []
        for row in study.networks:
            found = published.get(row, PublishedTimes(row=row))
            mark = ""
            if found.note:
                notes.append(f"[{len(notes) + 1}] {found.note}")
                mark = f" [{len(notes)}]"
            line = {
                "network": row + mark,
                "parameters": f"{self.parameters[row]:,}",
                "MB": f"{self.megabytes[row]:.2f}",
                f"CPU s, {study.images} slices": _mean_sd(self.seconds[CPU][row]),
            }
            if self.seconds[GPU]:
                line[f"GPU s, batch of {study.batch}"] = _mean_sd(self.seconds[GPU][row])
            told = {
                "parameters": None if found.parameters is None else f"{found.parameters:,}",
                "MB": None if found.megabytes is None else f"{found.megabytes:g}",
                "CPU s": _published(found.cpu_s, found.cpu_sd),
                "GPU s": _published(found.gpu_s, found.gpu_sd),
            }
            line |= {f"{key} published": text for key, text in told.items() if text is not None}
            rows.append(line)
        columns = dict.fromkeys(key for line in rows for key in line)
        rows = [{key: line.get(key, "-") for key in columns} for line in rows]
        machine = this_machine()
        notes.append(
            f"Mean ± SD of {study.repetitions} repetitions in turns, {study.threads} thread(s), "
            f"float32, PyTorch, images of {study.image[0]} x {study.image[1]}; "
            f"{machine.processor}, {machine.cores} core(s), load {machine.load_average:.1f}"
        )
        if not self.seconds[GPU]:
            notes.append("No GPU on this machine: its column was not measured.")
        return rows, [*notes, *study.notes]

    def tests(self) -> list[str]:
        """Student's t-test between any two rows, as paper 001 has it, corrected by Holm."""
        from scipy.stats import ttest_ind

        told = []
        for device, by_row in self.seconds.items():
            pairs = list(combinations(by_row, 2))
            p_values = [float(ttest_ind(by_row[a], by_row[b]).pvalue) for a, b in pairs]
            for (a, b), p in zip(pairs, holm(p_values), strict=True):
                ratio = fmean(by_row[b]) / fmean(by_row[a])
                chance = "p < 0.0001" if p is not None and p < 1e-4 else f"p = {p:.4f}"
                told.append(f"{device}: {b} takes {ratio:.2f} times the time of {a} ({chance})")
        return told


def run_times(
    study: TimesStudy, folder: Path, tell: Callable[[str], None] = lambda text: None
) -> Times:
    """Measure, and write `times.csv` and `table.md` into a folder.

    Raises:
        LeansegError: If a network is not known or cannot take the image.
    """
    require_package("statsmodels", "leanseg study", "leanseg[statistics]")
    import torch

    from leanseg.inference.engines.torch_engine import TorchEngine
    from leanseg.networks import build, count_parameters
    from leanseg.networks.measure import network_cost
    from leanseg.runtime import keep_large_blocks

    written = [folder / TIMES_FILE, folder / TABLE_FILE]
    require_outputs(written, new_folders=True)
    costs = {row: network_cost(name, study.image) for row, name in study.networks.items()}
    keep_large_blocks()
    torch.set_num_threads(study.threads)
    image = torch.rand(1, 1, *study.image, generator=torch.Generator().manual_seed(0)).numpy()
    networks = {
        row: build(name, generator=torch.Generator().manual_seed(0))
        for row, name in study.networks.items()
    }
    engines = {row: TorchEngine(each.eval(), image.shape) for row, each in networks.items()}
    seconds: dict[str, dict[str, list[float]]] = {CPU: {row: [] for row in networks}, GPU: {}}
    for number in range(study.repetitions):
        for row, engine in engines.items():
            # Not counted: what a network does once, and what another left in the caches.
            engine.run(image)
            started = time.perf_counter()
            for _ in range(study.images):
                engine.run(image)
            seconds[CPU][row].append(time.perf_counter() - started)
        tell(f"{number + 1}/{study.repetitions} on the processor")
    if torch.cuda.is_available():
        for number in range(study.repetitions):
            for row, network in networks.items():
                seconds[GPU].setdefault(row, []).append(_step_s(network, study))
            tell(f"{number + 1}/{study.repetitions} on the GPU")
    found = Times(
        study,
        seconds,
        {row: count_parameters(each).keras_total for row, each in networks.items()},
        {row: cost.weight_bytes / 2**20 for row, cost in costs.items()},
    )
    folder.mkdir(parents=True, exist_ok=True)
    _write(found, folder)
    return found


def _step_s(network: SegmentationNetwork, study: TimesStudy) -> float:
    """Seconds of a training step on a GPU, the mean of ten after two that warm up."""
    import torch

    on_gpu = network.to("cuda").train()
    images = torch.rand(study.batch, 1, *study.image, device="cuda")
    n_warm, n_timed = 2, 10
    for step in range(n_warm + n_timed):
        if step == n_warm:
            torch.cuda.synchronize()
            started = time.perf_counter()
        outputs = on_gpu(images)
        maps = [outputs] if isinstance(outputs, torch.Tensor) else outputs
        torch.stack([each.float().mean() for each in maps]).sum().backward()  # type: ignore[no-untyped-call]
    torch.cuda.synchronize()
    took = (time.perf_counter() - started) / n_timed
    network.to("cpu").zero_grad(set_to_none=True)
    return took


def _write(found: Times, folder: Path) -> None:
    study = found.study
    rows, notes = found.cells()
    records = (
        {"device": device, "network": row, "repetition": number, "seconds": value}
        for device, by_row in found.seconds.items()
        for row, values in by_row.items()
        for number, value in enumerate(values)
    )
    write_csv(folder / TIMES_FILE, ["device", "network", "repetition", "seconds"], records)
    lines = [f"# {study.title or study.name}", ""]
    lines += [f"| {' | '.join(rows[0])} |", f"|{'---|' * len(rows[0])}"]
    lines += [f"| {' | '.join(row.values())} |" for row in rows]
    lines += ["", *(f"{note}  " for note in notes), "", *(f"- {each}" for each in found.tests())]
    write_text(folder / TABLE_FILE, "\n".join(lines) + "\n")


def _mean_sd(values: list[float]) -> str:
    return f"{fmean(values):.3g} ± {stdev(values):.2g}"


def _published(value: float | None, sd: float | None) -> str | None:
    return None if value is None else f"{value:g}" + ("" if sd is None else f" ± {sd:g}")
