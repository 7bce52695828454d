"""Mutated DICOM series: every outcome is a volume or a user's error, at once and within bounds.

Most mutations change one file of a small series: bits flipped, bytes cut off, elements deleted,
exchanged, repeated or given absurd values, lengths overwritten.
"""

from __future__ import annotations

import copy
import logging
import os
import resource
import shutil
import struct
import time
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import (
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from dicom_writer import compress, enhanced_dataset, volume_datasets, write_slices
from leanseg.errors import LeansegError
from leanseg.volumes import Volume, read_volume
from leanseg.volumes.dicom import find_series, is_dicom

from .conftest import AFFINE, scan_array

ROUNDS = int(os.environ.get("LEANSEG_FUZZ_ROUNDS", "90"))
NAME = "Weiss^Aenne"
MOST_BYTES, MOST_SECONDS = 512 << 20, 5.0

ABSURD = {
    "DS": ["1e308", "-1e308", "nan", "inf", "0", "-1", "1e-300", "", "abc", "1\\2\\3\\4\\5\\6\\7"],
    "IS": ["-1", "0", "2147483647", "99999999999999", "x", "1e400"],
    "US": [0, 1, 2, 7, 255, 32768, 65535],
    "UI": ["", "1.2.3", "0" * 64, "1.2.840.10008.1.2.1.99", "1.2.840.10008.5.1.4.1.1.7"],
    "CS": ["", "SEG", "MONOCHROME1", "PALETTE COLOR", "\\\\", "LOCALIZER", "RGB"],
    "LO": ["", "\x1b[31m", "ÿ" * 64],
    "PN": ["", "a=b=c"],
}


def bases(tmp_path_factory):
    """Series of every kind that is read, as the bytes of their files."""
    datasets = {
        "explicit": volume_datasets(scan_array((6, 5, 4)), AFFINE, patient=NAME),
        "implicit": volume_datasets(scan_array((6, 5, 4)), AFFINE, patient=NAME),
        "padded": volume_datasets(scan_array((6, 5, 4)), AFFINE, patient=NAME, slope=0.5),
        "enhanced": [
            enhanced_dataset(volume_datasets(scan_array((6, 5, 4)), AFFINE, patient=NAME))
        ],
    }
    for dataset in datasets["implicit"]:
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    for dataset in datasets["padded"]:
        dataset.PixelPaddingValue, dataset.PixelPaddingRangeLimit = -2000, -1900
    syntaxes = {"j2k": JPEG2000Lossless, "rle": RLELossless, "jls": JPEGLSLossless}
    if shutil.which("dcmcjpeg"):
        syntaxes["jpeg"] = JPEGLosslessSV1
    for name, syntax in syntaxes.items():
        slices = volume_datasets(scan_array((33, 32, 3)), AFFINE, patient=NAME)
        datasets[name] = [compress(dataset, syntax) for dataset in slices]
    return datasets


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    return {
        name: [
            file.read_bytes()
            for file in write_slices(tmp_path_factory.mktemp(name), copy.deepcopy(datasets))
        ]
        for name, datasets in bases(tmp_path_factory).items()
    }


def flip_bits(content, rng):
    changed = bytearray(content)
    for place in rng.integers(0, len(content), rng.integers(1, 12)):
        changed[place] ^= 1 << rng.integers(8)
    return bytes(changed)


def flip_header_bits(content, rng):
    end = max(content.rfind(b"\xe0\x7f\x10\x00"), 200)
    return flip_bits(content[132:end], rng).join([content[:132], content[end:]])


def truncate(content, rng):
    return content[: rng.integers(0, len(content))]


def repeat(content, rng):
    start, end = sorted(rng.integers(0, len(content), 2))
    return content[:end] + content[start:end] + content[end:]


def remove(content, rng):
    start = int(rng.integers(128, len(content)))
    return content[:start] + content[start + int(rng.integers(1, 40)) :]


def overwrite_lengths(content, rng):
    """Values that lengths and counts break at, at any even place."""
    changed = bytearray(content)
    for _ in range(int(rng.integers(1, 4))):
        place = 2 * int(rng.integers(66, len(content) // 2 - 2))
        value = rng.choice([0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF, len(content)])
        changed[place : place + 4] = struct.pack("<I", value)
    return bytes(changed)


BYTEWISE = (flip_bits, flip_header_bits, truncate, repeat, remove, overwrite_lengths)


def change_elements(dataset, rng):
    """Some elements, of any depth, deleted, exchanged or made absurd."""
    found = [(dataset, element.tag) for element in dataset]
    for element in dataset:
        if element.VR == "SQ":
            found += [(item, inner.tag) for item in element.value for inner in item]
            inner_items = [i for item in element.value for i in item if i.VR == "SQ"]
            found += [(i, e.tag) for sq in inner_items for i in sq.value for e in i]
    for _ in range(int(rng.integers(1, 4))):
        where, tag = found[rng.integers(len(found))]
        if tag not in where or tag == 0x00280100:
            continue
        element, action = where[tag], rng.integers(4)
        if action == 0:
            del where[tag]
        elif action == 1:
            other, other_tag = found[rng.integers(len(found))]
            # A name that was put into a description is one, and is shown.
            if (
                other_tag in other
                and other[other_tag].VR == element.VR
                and 0x10
                not in (
                    tag.group,
                    other_tag.group,
                )
            ):
                element._value, other[other_tag]._value = other[other_tag].value, element.value
        elif element.VR in ABSURD:
            choices = ABSURD[element.VR]
            value = choices[rng.integers(len(choices))]
            where[tag] = pydicom.DataElement(tag, element.VR, value, validation_mode=0)
        elif element.VR == "SQ":
            element.value = element.value[: rng.integers(len(element.value) + 1)]


def mutated(content, rng, folder):
    """One mutation of a file's bytes."""
    if rng.random() < 0.5:
        return BYTEWISE[rng.integers(len(BYTEWISE))](content, rng)
    (folder / "source").write_bytes(content)
    dataset = pydicom.dcmread(folder / "source")
    try:
        change_elements(dataset, rng)
        dataset.save_as(folder / "changed", enforce_file_format=False)
    except Exception:  # pydicom will not write all that can lie on a disk
        return flip_bits(content, rng)
    return (folder / "changed").read_bytes()


@contextmanager
def little_memory():
    """No more memory than there is, but for some: what asks for much more fails."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + MOST_BYTES, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def outcome(path):
    """What reading gives: "read", or the message of a user's error."""
    start = time.perf_counter()
    try:
        assert is_dicom(path) in (True, False)
        inventory = find_series(path)
        assert NAME not in repr(inventory)
        volume = read_volume(path, fill_missing=True)
        assert isinstance(volume, Volume)
        assert volume.array.dtype in (np.int16, np.float32)
        assert np.isfinite(volume.array).all()
        result = "read"
    except LeansegError as error:
        result = str(error)
        assert "\n" not in result
        assert not any(word in result for word in (NAME, "Weiss", "ID-", "19700101"))
    assert time.perf_counter() - start < MOST_SECONDS
    return result


KINDS = ("explicit", "enhanced", "j2k", "implicit", "padded", "rle", "jls", "jpeg")


@pytest.mark.parametrize(
    "kind", [*KINDS[:3], *(pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS[3:])]
)
def test_mutated_series_give_a_volume_or_a_sentence(originals, tmp_path, kind, caplog):
    caplog.set_level(logging.CRITICAL, "pydicom")
    folder = tmp_path / "scan"
    folder.mkdir()
    if kind not in originals:
        pytest.skip("DCMTK's dcmcjpeg is not installed")
    contents = originals[kind]
    for number, content in enumerate(contents):
        (folder / f"{number}").write_bytes(content)
    assert outcome(folder) == "read"
    results = []
    with warnings.catch_warnings(), little_memory():
        warnings.simplefilter("ignore")
        for seed in range(ROUNDS):
            rng = np.random.default_rng([KINDS.index(kind), seed])
            number = int(rng.integers(len(contents)))
            (folder / f"{number}").write_bytes(mutated(contents[number], rng, tmp_path))
            results.append(outcome(folder))
            (folder / f"{number}").write_bytes(contents[number])
    # The mutations are worth something: some are harmless, many are found, in many ways.
    assert 0 < results.count("read") < ROUNDS
    assert len(set(results)) > 10
