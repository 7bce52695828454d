"""A benchmark's record as tables and sentences."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leanseg.benchmarking.machine import machine_line

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

_UNKNOWN = "-"
_CSV_SPREADS = ("latency_s", "latency_cpu_s", "whole_process_s", "load_s", "first_slices_s")


def report(record: dict[str, Any]) -> Iterator[RenderableType]:
    """What is printed, in order: tables as in paper 000's tables 3 and 2, then sentences."""
    from rich.text import Text

    yield Text(heading(record))
    yield Text(machine_line(record["machine"]) + "\n")
    yield _models_table(record)
    for number, model in enumerate(record["models"]):
        results = [each for each in record["results"] if each["model"] == model["file"]]
        title = f"{model['name']} ({model['network']})" if len(record["models"]) > 1 else ""
        yield Text(f"\n{title}" if title else "")
        yield _results_table(results)
        for line in _left_out(results):
            yield Text(line)
        if number == len(record["models"]) - 1:
            yield Text("\n" + legend(record))
    if record["against"]:
        yield Text("")
        yield _against_table(record)
        for line in _against_lines(record):
            yield Text(line)


def heading(record: dict[str, Any]) -> str:
    """The scan, threads and repeats in one line."""
    scan, settings = record["scan"], record["settings"]
    size = " x ".join(map(str, scan["shape"]))
    source = "a phantom" if scan["source"] == "phantom" else Path(scan["source"]).name
    megabytes = "" if scan["file_mb"] is None else f", {scan['file_mb']:.1f} MB on disk"
    threads = f"{settings['threads']} thread{'s' * (settings['threads'] != 1)}"
    return (
        f"{source}, {size} voxels{megabytes}; {threads}, pinned to as many cores; "
        f"medians of {settings['repeats']}, each a process of its own, in turns"
    )


def legend(record: dict[str, Any]) -> str:
    """What the columns are."""
    references = {each["reference"] for each in record["results"] if each.get("reference")}
    reference = f" Same labels: share of voxels as in {', '.join(sorted(references))}."
    return (
        "s/scan: the scan in memory, model warm (lowest to highest). Process: from its start to "
        "its end, file to file; start: until the model is ready. Peak: resident memory."
        + (reference if references else "")
    )


def _table(*columns: tuple[str, bool]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for name, is_text in columns:
        table.add_column(
            name, justify="left" if is_text else "right", overflow="fold", no_wrap=not is_text
        )
    return table


def _models_table(record: dict[str, Any]) -> Table:
    kinds = {each["input_kind"] for each in record["models"]}
    of_input = f"multiply-adds a {kinds.pop()}" if len(kinds) == 1 else "multiply-adds an input"
    columns = (("model", True), ("input", True), ("parameters", False), ("as Keras\ncounts", False))
    table = _table(*columns, ("model file\nMB", False), (of_input.replace(" a", "\na"), False))
    for each in record["models"]:
        members = f", {each['members']} networks" if each["members"] > 1 else ""
        table.add_row(
            f"{each['name']} ({each['network']}{members})",
            "x".join(map(str, each["input_shape"])),
            f"{each['parameters']:,}",
            f"{each['keras_total']:,}",
            f"{each['file_bytes'] / 1e6:,.2f}",
            _giga(each["multiply_adds"], each["uncounted"]),
        )
    return table


def _giga(number: int | None, uncounted: list[str] | tuple[str, ...] = ()) -> str:
    if number is None:
        return _UNKNOWN
    amount = f"{number / 1e9:.3g} G" if number >= 1e8 else f"{number / 1e6:.3g} M"
    return f"{'over ' if uncounted else ''}{amount}"


def _results_table(results: list[dict[str, Any]]) -> Table:
    table = _table(
        ("engine", True),
        ("precision", True),
        ("s/scan", False),
        ("(range)", False),
        ("ms/slice", False),
        ("process\ns", False),
        ("start\ns", False),
        ("peak\nMB", False),
        ("same\nlabels", False),
    )
    for each in results:
        if each["status"] != "measured":
            continue
        warm = each["latency_s"]
        table.add_row(
            _asked(each["engine"], each["chosen"]["engine"]),
            _asked(each["precision"], each["chosen"]["precision"]),
            _seconds(warm["median"]),
            f"({_seconds(warm['min'])}-{_seconds(warm['max'])})",
            f"{each['ms_per_slice']:.1f}",
            _seconds(each["whole_process_s"]["median"]),
            f"{each['load_s']['median']:.2f}",
            f"{each['peak_memory_mb']['median']:.0f}",
            share(each["equal_voxels"]),
        )
    return table


def _asked(asked: str, chosen: str) -> str:
    return chosen if asked == chosen else f"{asked}: {chosen}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f}" if seconds < 100 else f"{seconds:.0f}"


def share(value: float | None) -> str:
    """A share in percent that is 100 only if every voxel is the same."""
    if value is None:
        return _UNKNOWN
    if value == 1:
        return "100 %"
    return f"{min(100 * value, 99.9999):.4f} %"


def _left_out(results: list[dict[str, Any]]) -> Iterator[str]:
    """What could not be measured, each reason once."""
    reasons: dict[tuple[str, str, str], list[str]] = {}
    for each in results:
        if each["status"] != "measured":
            key = each["engine"], each["status"], each["message"]
            reasons.setdefault(key, []).append(each["precision"])
    for (engine, status, message), precisions in reasons.items():
        # A missing package is missing in every precision.
        kinds = "" if status == "not installed" else f" {', '.join(precisions)}"
        yield f"{engine}{kinds}: {status} ({message})"


def _against_table(record: dict[str, Any]) -> Table:
    table = _table(
        ("tool", True),
        ("setting", True),
        ("process\ns", False),
        ("of it\nnetwork", False),
        ("peak\nMB", False),
        ("leanseg's", True),
        ("time\nratio", False),
        ("memory\nratio", False),
    )
    for each in record["against"]:
        if each["status"] != "measured":
            continue
        mark = "~" if each["extrapolated"] else ""
        cells = [
            each["tool"],
            each["setting"],
            mark + _seconds(each["whole_process_s"]["median"]),
            mark + _seconds(each["network_s"]["median"]),
            f"{each['peak_memory_mb']['median']:.0f}",
        ]
        for ratio in each["ratios"]:
            ours = f"{ratio['engine']} {ratio['precision']}"
            table.add_row(*cells, ours, mark + _times(ratio["time"]), _times(ratio["memory"]))
            cells = [""] * len(cells)
    return table


def _times(ratio: float) -> str:
    return f"{ratio:.1f}" if ratio < 100 else f"{ratio:.0f}"


def _against_lines(record: dict[str, Any]) -> Iterator[str]:
    """What the ratios mean, and what they do not."""
    yield (
        "\nRatios: the tool's whole process, file to file, over leanseg's; above 1, leanseg takes "
        f"less. Medians of {record['settings']['against_repeats']} and of "
        f"{record['settings']['repeats']} runs."
    )
    ours = record["models"][0]
    for each in record["against"]:
        label = f"{each['tool']}, {each['setting']}"
        if each["status"] != "measured":
            yield f"{label}: {each['status']} ({each['message']})"
        elif each["tool"] == "monai":
            yield (
                f"{label}: the model's own network; labels as in {each['reference'] or 'none'}: "
                f"{share(each['equal_voxels'])} of the voxels"
            )
        else:
            yield _nnunet_line(label, each, ours)


def _nnunet_line(label: str, each: dict[str, Any], ours: dict[str, Any]) -> str:
    network = each["network"]
    patch = " x ".join(map(str, network["patch_size"]))
    line = (
        f"{label}: another network with random weights, {network['parameters']:,} parameters "
        f"({ours['parameters']:,} in leanseg's), {each['tiles']} tiles of {patch}, "
        f"{network['passes']} pass{'es' * (network['passes'] != 1)} each of "
        f"{_giga(network['multiply_adds'])} multiply-adds"
    )
    if each["extrapolated"]:
        line += f"; extrapolated from {each['timed_tiles']} of {each['tiles']} tiles (marked ~)"
    return line


def as_csv(record: dict[str, Any]) -> str:
    """One line a model, engine and precision, and one for every other tool's setting."""
    rows = [_csv_row(each, record) for each in record["results"]]
    rows += [
        {
            "model": record["models"][0]["name"],
            "tool": each["tool"],
            "precision": each["setting"],
            "status": each["status"],
            "message": each["message"],
            **_flat(each, ("whole_process_s", "network_s", "peak_memory_mb")),
        }
        for each in record["against"]
    ]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _csv_row(each: dict[str, Any], record: dict[str, Any]) -> dict[str, Any]:
    model = next(one for one in record["models"] if one["file"] == each["model"])
    return {
        "model": model["name"],
        "parameters": model["parameters"],
        "file_bytes": model["file_bytes"],
        "multiply_adds": model["multiply_adds"],
        "tool": f"leanseg {each['engine']}",
        "precision": each["precision"],
        "status": each["status"],
        "message": each["message"],
        **_flat(each, (*_CSV_SPREADS, "peak_memory_mb")),
        "ms_per_slice": each.get("ms_per_slice"),
        "equal_voxels": each.get("equal_voxels"),
    }


def _flat(each: dict[str, Any], names: tuple[str, ...]) -> dict[str, float]:
    return {f"{name}_{kind}": value for name in names for kind, value in each.get(name, {}).items()}
