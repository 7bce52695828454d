"""Damaged dataset.json, labels.json, dseg.tsv and CSV files: each is a dataset or a sentence."""

from __future__ import annotations

import copy
import json
import time
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import layout_samples as samples
from leanseg.datasets import Dataset, open_dataset
from leanseg.errors import LeansegError

N_EACH = 200
LARGEST_BYTES = 32 * 2**20
LONGEST_S = 2.0

ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, 2, -1, 255, 65535, 65536, 10**30, 0.5, -0.0, 1e308),
    *("", " ", "0", "1", "x", "liver", "background", "\0", "a\0b", "\ud800", "é日本", "\n\r", "-"),
    *("../../..", "/", ".", "..", "/dev/zero", "/proc/self/mem", "$HOME", "~", "a/" * 3000),
    *("x" * 5000, "1" * 5000, "%s{0}", "9" * 20, "1e5", "nan", "0x10", "١"),
    *([], {}, [[]], [None], {"": ""}, {"0": None}, {"a": [1]}, [1, "2", None], [True]),
    *({"image": 1}, {"image": "imagesTr"}, {"0": "CT", "00": "MR"}, float("nan"), float("inf")),
)


def nodes(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in a JSON value, with each of its keys or indices."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    for key in keys:
        yield value, key
        if isinstance(value[key], (dict, list)):
            yield from nodes(value[key])


def odd_nodes(text: str, rng: np.random.Generator) -> bytes:
    """A JSON document with some of its values, keys or entries changed."""
    value = copy.deepcopy(json.loads(text))
    for _ in range(rng.integers(1, 4)):
        places = list(nodes(value))
        if not places:
            break
        container, key = places[rng.integers(len(places))]
        odd = copy.deepcopy(ODD_VALUES[rng.integers(len(ODD_VALUES))])
        kind = rng.integers(5)
        if kind == 0:
            del container[key]
        elif kind == 1 and isinstance(container, dict):
            container[str(odd)[:5000]] = container.pop(key)
        elif kind == 2 and isinstance(container, list):
            container.append(copy.deepcopy(container[key]))
        else:
            container[key] = odd
    return json.dumps(value).encode()


def odd_top(text: str, rng: np.random.Generator) -> bytes:
    """Another kind of value at the top, deep nesting, or numbers that are too long."""
    odd = ODD_VALUES[rng.integers(len(ODD_VALUES))]
    kinds = (
        json.dumps(odd),
        "[" * 100_000,
        '{"a":' * 50_000,
        f'{{"labels": {{"a": {"1" * 9000}}}}}',
    )
    return kinds[rng.integers(len(kinds))].encode()


def flipped_bytes(text: str, rng: np.random.Generator) -> bytes:
    """Bits turned over anywhere in the text."""
    content = bytearray(text.encode())
    for place in rng.integers(0, len(content), rng.integers(1, 12)):
        content[place] ^= 1 << int(rng.integers(8))
    return bytes(content)


def other_characters(text: str, rng: np.random.Generator) -> bytes:
    """Characters that mean something to a parser, put anywhere."""
    for _ in range(rng.integers(1, 6)):
        place = int(rng.integers(len(text) + 1))
        odd = "\"'{}[]:,;\t\n\r\0\\ \ufeff\u2028é0-/"[rng.integers(21)]
        text = text[:place] + odd + text[place + int(rng.integers(3)) :]
    return text.encode()


def cut_short(text: str, rng: np.random.Generator) -> bytes:
    """The end missing."""
    return text.encode()[: int(rng.integers(len(text)))]


def odd_cells(text: str, rng: np.random.Generator) -> bytes:
    """A table with some of its cells and lines changed."""
    separator = "\t" if "\t" in text else ","
    rows = [line.split(separator) for line in text.splitlines()]
    for _ in range(rng.integers(1, 4)):
        row = rows[rng.integers(len(rows))]
        kind = rng.integers(5)
        if kind == 0:
            row.append("x")
        elif kind == 1 and len(row) > 1:
            row.pop()
        elif kind == 2:
            rows.append(list(row))
        else:
            odd = str(ODD_VALUES[rng.integers(len(ODD_VALUES))])
            row[rng.integers(len(row))] = odd
    return "\n".join(separator.join(row) for row in rows).encode("utf-8", "surrogatepass")


TEXT = (flipped_bytes, other_characters, cut_short)
JSON = (odd_nodes, odd_nodes, odd_nodes, odd_nodes, odd_top, *TEXT)
TABLE = (odd_cells, odd_cells, odd_cells, *TEXT)


def many_features(folder: Path, layout: str) -> Path:
    """A dataset whose listing has every key that its layout knows; returns the listing."""
    samples.WRITERS[layout](folder)
    first, second = samples.CASES
    if layout == "table":
        (folder / "labels.json").unlink()
        for path in folder.glob("drawn/*"):
            path.rename(folder / path.name)
        text = "case,image,label:liver,label:spleen,patient,annotated,site\n" + "".join(
            f"c{n},scans of {n}/a.nii.gz,{n}.nii.gz,,p{n},liver;spleen,Ulm\n" for n in (0, 1)
        )
        (folder / "listing.csv").write_text(text)
        return folder / "listing.csv"
    if layout == "bids":
        return folder / "derivatives/manual/dseg.tsv"
    if layout == "casefolders":
        return folder / first / "labels.json"
    path = folder / ("labels.json" if layout == "plain" else "dataset.json")
    listing = json.loads(path.read_text())
    listing["metadata"] = {first: {"patient": "1"}}
    if layout == "plain":
        listing["annotated"] = {second: ["liver"]}
    elif layout == "nnunet":
        listing["labels"]["both"] = [1, 2]
    else:
        listing["test"] = [{"image": f"./imagesTr/{first}.nii.gz"}]
        listing["training"] = listing["training"][1:]
    path.write_text(json.dumps(listing))
    return path


KINDS: dict[str, tuple[Callable[[str, np.random.Generator], bytes], ...]] = {
    "decathlon": JSON,
    "nnunet": JSON,
    "plain": JSON,
    "casefolders": JSON,
    "table": TABLE,
    "bids": TABLE,
}


def outcome(folder: Path) -> Dataset | LeansegError:
    """What opening gives; the labels are asked for, since some layouts look for them late."""
    try:
        dataset = open_dataset(folder)
        assert all(isinstance(name, str) for name in dataset.labels)
        assert all(0 < value < 65536 for value in dataset.labels.values())
        assert len({case.name for case in dataset.cases}) == len(dataset.cases) > 0
        json.dumps([case.to_json() for case in dataset.cases])
    except LeansegError as error:
        return error
    return dataset


@pytest.mark.parametrize("layout", list(KINDS))
def test_every_damaged_listing_is_a_dataset_or_a_sentence(tmp_path: Path, layout: str) -> None:
    path = many_features(tmp_path / "d", layout)
    text = path.read_text(encoding="utf-8-sig")
    assert isinstance(outcome(tmp_path / "d"), Dataset)
    tracemalloc.start()
    refused = 0
    try:
        for number in range(N_EACH):
            rng = np.random.default_rng([number, len(layout)])
            mutation = KINDS[layout][rng.integers(len(KINDS[layout]))]
            path.write_bytes(mutation(text, rng))
            tracemalloc.reset_peak()
            start = time.perf_counter()
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                found = outcome(tmp_path / "d")
            assert time.perf_counter() - start < LONGEST_S, number
            assert tracemalloc.get_traced_memory()[1] < LARGEST_BYTES, number
            if isinstance(found, LeansegError):
                refused += 1
                message = str(found)
                message.encode()  # can be printed
                assert "\n" not in message, number
                assert len(message) < 3500, number
    finally:
        tracemalloc.stop()
    # Both ends were seen.
    assert 0.2 * N_EACH < refused < 0.99 * N_EACH
