"""Ways to damage a file: bytes and a generator in, other bytes out.

A mutator takes the sound content, a generator that decides everything, and the contents of other
sound files, for splices. What it cannot damage (a JSON mutator given no JSON) it passes to
`any_bytes`.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import struct
import zipfile
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from typing import Any

import numpy as np
import yaml

Mutator = Callable[[bytes, np.random.Generator, Sequence[bytes]], bytes]


def pick(options: Sequence[Any], rng: np.random.Generator) -> Any:
    """One of them, as it is: numpy's own choice would make arrays of them."""
    return options[int(rng.integers(len(options)))]


# --- Any file ------------------------------------------------------------------------------------


def flip(content: bytes, rng: np.random.Generator, others: Sequence[bytes] = ()) -> bytes:
    changed = bytearray(content)
    for _ in range(int(rng.choice([1, 1, 1, 3, 20]))):
        # Headers are where damage tells: half of the flips lie within the first 600 bytes.
        end = len(content) if rng.random() < 0.5 else min(600, len(content))
        changed[int(rng.integers(end))] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def cut(content: bytes, rng: np.random.Generator, others: Sequence[bytes] = ()) -> bytes:
    return content[: int(rng.integers(len(content)))]


def insert(content: bytes, rng: np.random.Generator, others: Sequence[bytes] = ()) -> bytes:
    at = int(rng.choice([0, int(rng.integers(len(content))), len(content)]))
    return content[:at] + rng.bytes(int(rng.integers(1, 400))) + content[at:]


def remove(content: bytes, rng: np.random.Generator, others: Sequence[bytes] = ()) -> bytes:
    at = int(rng.integers(len(content)))
    return content[:at] + content[at + int(rng.integers(1, 40)) :]


def repeat(content: bytes, rng: np.random.Generator, others: Sequence[bytes] = ()) -> bytes:
    start, end = sorted(int(n) for n in rng.integers(0, len(content) + 1, 2))
    return content[:end] + content[start:end] + content[end:]


def splice(content: bytes, rng: np.random.Generator, others: Sequence[bytes] = ()) -> bytes:
    other = pick([*others, content], rng)
    return content[: int(rng.integers(len(content)))] + other[int(rng.integers(len(other) + 1)) :]


def fill(content: bytes, rng: np.random.Generator, others: Sequence[bytes] = ()) -> bytes:
    at, length = int(rng.integers(len(content))), int(rng.integers(1, 64))
    run = bytes([pick((0, 0xFF, 0x20, 0x0A), rng)]) * length
    return content[:at] + run[: len(content) - at] + content[at + length :]


def number32(content: bytes, rng: np.random.Generator, others: Sequence[bytes] = ()) -> bytes:
    """Values that lengths and counts break at, at any even place."""
    changed = bytearray(content)
    for _ in range(int(rng.integers(1, 4))):
        at = 2 * int(rng.integers(max(1, len(content) // 2 - 2)))
        odd = (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF, len(content))
        changed[at : at + 4] = struct.pack(pick(("<I", ">I"), rng), pick(odd, rng))
    return bytes(changed)


BYTES: tuple[Mutator, ...] = (flip, flip, cut, insert, remove, repeat, splice, fill, number32)


def any_bytes(content: bytes, rng: np.random.Generator, others: Sequence[bytes] = ()) -> bytes:
    """One of the ways above."""
    return pick(BYTES, rng)(content, rng, others) if content else rng.bytes(20)


def gzipped(inner: Mutator) -> Mutator:
    """Damage to what a gzip file holds; where the file is none, to the file itself."""

    def mutate(content: bytes, rng: np.random.Generator, others: Sequence[bytes]) -> bytes:
        if not content.startswith(b"\x1f\x8b"):
            return inner(content, rng, others)
        return gzip.compress(inner(gzip.decompress(content), rng, others), 1, mtime=0)

    return mutate


# --- Headers -------------------------------------------------------------------------------------

_NIFTI1 = {
    "sizeof_hdr": (0, "<i4"), "dim": (40, "<8i2"), "datatype": (70, "<i2"), "bitpix": (72, "<i2"),
    "pixdim": (76, "<8f4"), "vox_offset": (108, "<f4"), "slope": (112, "<f4"),
    "inter": (116, "<f4"), "xyzt_units": (123, "u1"), "codes": (252, "<2i2"),
    "quaternion": (256, "<3f4"), "offset": (268, "<3f4"), "srow": (280, "<12f4"),
    "magic": (344, "4u1"),
}  # fmt: skip
_NIFTI2 = {
    "sizeof_hdr": (0, "<i4"), "magic": (4, "8u1"), "datatype": (12, "<i2"), "bitpix": (14, "<i2"),
    "dim": (16, "<8i8"), "pixdim": (104, "<8f8"), "vox_offset": (168, "<i8"), "slope": (176, "<f8"),
    "inter": (184, "<f8"), "codes": (344, "<2i4"), "quaternion": (352, "<3f8"),
    "offset": (376, "<3f8"), "srow": (400, "<12f8"), "xyzt_units": (500, "<i4"),
}  # fmt: skip
_ODD_INTEGERS = (0, 1, -1, 2, 3, 7, 8, 127, 255, 256, 348, 512, 1024, 2304, 32767, -32768, 2**31)
_ODD_FLOATS = (0.0, -0.0, -1.0, 1e-38, 1e-12, 1e12, 1e38, -1e38, np.nan, np.inf, -np.inf, 352.5, 3)


def nifti_field(content: bytes, rng: np.random.Generator, others: Sequence[bytes] = ()) -> bytes:
    """One or more header fields of values that nobody expects."""
    is_second = content[:4] in (b"\x1c\x02\0\0", b"\0\0\x02\x1c")
    order = ">" if content[:2] == b"\0\0" else "<"
    changed = bytearray(content)
    for _ in range(int(rng.integers(1, 4))):
        offset, kind = pick(list((_NIFTI2 if is_second else _NIFTI1).values()), rng)
        dtype = np.dtype(kind.replace("<", order))
        base, count = (dtype.subdtype or (dtype, (1,)))[0], int(np.prod(dtype.shape or (1,)))
        at = offset + base.itemsize * int(rng.integers(count))
        odd = np.array(pick(_ODD_FLOATS if base.kind == "f" else _ODD_INTEGERS, rng))
        with np.errstate(all="ignore"):
            changed[at : at + base.itemsize] = odd.astype(base).tobytes()
    return bytes(changed)


_ODD_WORDS = (
    *("0", "-1", "1", "2", "4", "nan", "inf", "-inf", "1e308", "-1e308", "1e-300", "1e999", ""),
    *("2147483647", "2147483648", "-2147483648", "4294967296", "9" * 300, "-" + "9" * 300, "0.5"),
    *("abc", "1 2", "x" * 5000, "%s%n", "\xff", "True", "None", "LOCAL", "LIST", "/dev/zero"),
    *("..", "scan.mhd", "MET_CHAR", "MET_DOUBLE", "MET_OTHER", "uint8", "block", "gzip", "hex"),
)


def text_header(content: bytes, rng: np.random.Generator, others: Sequence[bytes] = ()) -> bytes:
    """Lines "key = value" or "key: value" with odd values, keys removed, doubled or exchanged."""
    head, mark, data = _split_header(content)
    lines = head.split("\n")
    for _ in range(int(rng.integers(1, 4))):
        n = int(rng.integers(len(lines)))
        key, sign, value = _key_and_value(lines[n])
        action = int(rng.integers(8))
        words = list(re.finditer(r"[^\s(),]+", value))
        if action < 4 and words:
            word = pick(words, rng)
            value = value[: word.start()] + pick(_ODD_WORDS, rng) + value[word.end() :]
            lines[n] = key + sign + value
        elif action == 4:
            lines[n] = key + sign + pick(_ODD_WORDS, rng)
        elif action == 5:
            lines.insert(n, lines.pop(int(rng.integers(len(lines)))))
        elif action == 6:
            lines.insert(n, pick(lines, rng))
        elif len(lines) > 1:
            del lines[n]
    return "\n".join(lines).encode("latin1") + mark + data


def _split_header(content: bytes) -> tuple[str, bytes, bytes]:
    if content.startswith(b"NRRD"):
        head, mark, data = content.partition(b"\n\n")
    else:
        head, mark, data = content.partition(b"ElementDataFile = LOCAL\n")
        head, mark = head + mark.rstrip(b"\n"), mark[-1:]
    return head.decode("latin1"), mark, data


def _key_and_value(line: str) -> tuple[str, str, str]:
    found = re.match(r"([\w ]+?)(\s*[:=]+\s*)(.*)", line)
    return (found[1], found[2], found[3]) if found else ("", "", line)


# --- JSON, YAML, tables --------------------------------------------------------------------------

ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, 2, -1, 255, 65535, 65536, 10**30, 10**300, 0.5, -0.0, 1e308),
    *("", " ", "0", "1", "x", "liver", "background", "\0", "a\0b", "\ud800", "é日本", "\n\r", "-"),
    *("../../..", "/", ".", "..", "/dev/zero", "/proc/self/mem", "$HOME", "~", "a/" * 3000),
    *("x" * 5000, "1" * 5000, "%s{0}", "9" * 20, "1e5", "nan", "0x10", "١", "a\nb", "\x1b[31m"),
    *([], {}, [[]], [None], {"": ""}, {"0": None}, {"a": [1]}, [1, "2", None], [True], [[1], [2]]),
    *({"image": 1}, {"image": "imagesTr"}, {"0": "CT", "00": "MR"}, float("nan"), float("inf")),
    *(float("-inf"), 2**31, -(2**63), 1e-320, [0] * 1000),
)


def nodes(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in a value, with each of its keys or indices."""
    if isinstance(value, (dict, list)):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from nodes(value[key])


def change_nodes(value: Any, rng: np.random.Generator) -> Any:
    """Some of a value's keys deleted, renamed or doubled, or given another value; in place."""
    for _ in range(int(rng.choice([1, 1, 1, 2, 3]))):
        places = list(nodes(value))
        if not places:
            return value
        container, key = pick(places, rng)
        odd, action = pick(ODD_VALUES, rng), int(rng.integers(8))
        if action == 0:
            del container[key]
        elif action == 1 and isinstance(container, dict):
            container[str(odd)[:5000]] = container.pop(key)
        elif action == 2 and isinstance(container, list):
            container.append(container[key])
        elif action == 3:
            other, other_key = pick(places, rng)
            container[key] = json.loads(json.dumps(other.get(other_key, 0), default=str)) if (
                isinstance(other, dict)
            ) else odd  # fmt: skip
        elif action == 4 and isinstance(container[key], int | float):
            container[key] = pick((-container[key], container[key] + 1, str(container[key])), rng)
        else:
            container[key] = odd
    return value


def json_nodes(content: bytes, rng: np.random.Generator, others: Sequence[bytes] = ()) -> bytes:
    """A JSON document, or a line of several, with other values, keys or entries."""
    lines = content.decode().splitlines()
    whole = not _is_json(lines[0] if lines else "")
    n = 0 if whole else int(rng.integers(len(lines)))
    try:
        changed = change_nodes(json.loads(content if whole else lines[n]), rng)
    except (ValueError, RecursionError):
        return any_bytes(content, rng, others)
    if whole:
        return json.dumps(changed).encode("utf-8", "surrogatepass")
    lines[n] = json.dumps(changed)
    return "\n".join(lines).encode("utf-8", "surrogatepass") + b"\n"


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def json_top(content: bytes, rng: np.random.Generator, others: Sequence[bytes] = ()) -> bytes:
    """Another kind of value at the top, deep nesting, or numbers that are too long."""
    texts = (
        *(json.dumps(pick(ODD_VALUES, rng)), "[" * 100_000, '{"a":' * 50_000, "", "\ufeff"),
        *(f'{{"labels": {{"a": {"1" * 9000}}}}}', "1e999", "NaN", "{}", "[]", "null", "[1,]"),
    )
    return pick(texts, rng).encode("utf-8", "surrogatepass")


def json_text(content: bytes, rng: np.random.Generator, others: Sequence[bytes] = ()) -> bytes:
    """One of a document's scalars as no library would write it."""
    text = content.decode()
    scalars = list(re.finditer(r'(?<=[:\[,]) *("[^"]*"|-?[\d.e+]+|true|false|null)', text))
    if not scalars:
        return any_bytes(content, rng, others)
    one = pick(scalars, rng)
    odd = ("1e999", "-1e999", "9" * 5000, "NaN", "Infinity", "{", "[" * 3000, '"\\ud800"', "1.", "")
    return (text[: one.start()] + pick(odd, rng) + text[one.end() :]).encode()


JSON: tuple[Mutator, ...] = (*(json_nodes,) * 6, json_top, json_text, any_bytes)

ODD_YAML = (
    *("2001-99-99", "2001-01-01", "!!bool abc", "!!int x", "!!float x", "!!timestamp x", "!!x y"),
    *("9" * 5000, "[" * 3000, "{a: " * 1000, "&a [*a]", "*b", "!!binary x", "!!binary ----", "="),
    *("!!python/object/apply:os.system [x]", "!!set {a}", "!!omap [a: 1]", "? [a]", "{[a]: 1}"),
    *("1e999", ".nan", ".inf", "-.inf", "0x_", "0x1F", "08", "0o17", "1:2:3", "190:20:30", "1_000"),
    *("null", "~", "[]", "{}", "{a: {}}", "-1", "0", "0.0", "1e-320", "''", '"\\ud800"', "yes"),
    *("off", "[1, 2]", "[-1, 1]", "[1e10, 1e10]", "[0, 0, 0]", "100000", "[100000, 100000, null]"),
    *(
        "2147483648",
        "99999999999999999999",
        "-0.5",
        "1.5",
        "0.5",
        "x",
        "monet",
        "unet",
        "CT",
        "x:y",
    ),
    *("os:system", "leanseg", "[a]", "[null]", "{a: 1, a: 2}", "<<: 1", "|", "> x", "%", "@", "`"),
    *(
        "'a\n\nb'",
        "a\tb",
        "\x07",
        "é日本",
        "x" * 5000,
        "!!str 5",
        "!!null x",
        "all",
        "cpu:99",
        "32",
    ),
)


def yaml_value(content: bytes, rng: np.random.Generator, others: Sequence[bytes] = ()) -> bytes:
    """A value of one line replaced by one of YAML's own surprises."""
    lines = content.decode().splitlines()
    with_value = [n for n, line in enumerate(lines) if ":" in line]
    if not with_value:
        return any_bytes(content, rng, others)
    n = pick(with_value, rng)
    lines[n] = lines[n].partition(":")[0] + ": " + pick(ODD_YAML, rng)
    return "\n".join(lines).encode("utf-8", "surrogatepass") + b"\n"


def yaml_nodes(content: bytes, rng: np.random.Generator, others: Sequence[bytes] = ()) -> bytes:
    """A YAML document with other values, keys or entries."""
    try:
        changed = change_nodes(yaml.safe_load(content), rng)
        return yaml.safe_dump(changed, sort_keys=False).encode("utf-8", "surrogatepass")
    except (yaml.YAMLError, ValueError, RecursionError):
        return any_bytes(content, rng, others)


YAML: tuple[Mutator, ...] = (*(yaml_value,) * 4, *(yaml_nodes,) * 4, any_bytes)


def characters(content: bytes, rng: np.random.Generator, others: Sequence[bytes] = ()) -> bytes:
    """Characters that mean something to a parser, put anywhere."""
    text = content.decode("latin1")
    for _ in range(int(rng.integers(1, 6))):
        at = int(rng.integers(len(text) + 1))
        odd = pick("\"'{}[]:,;\t\n\r\0\\ \xff\x85é0-/#&*!|>%@`", rng)
        text = text[:at] + odd + text[at + int(rng.integers(3)) :]
    return text.encode("latin1")


def cells(content: bytes, rng: np.random.Generator, others: Sequence[bytes] = ()) -> bytes:
    """A table with some of its cells and lines changed."""
    text = content.decode("utf-8-sig")
    separator = "\t" if "\t" in text else ","
    rows = [line.split(separator) for line in text.splitlines()] or [[""]]
    for _ in range(int(rng.integers(1, 4))):
        row, action = pick(rows, rng), int(rng.integers(6))
        if action == 0:
            row.append("x")
        elif action == 1 and len(row) > 1:
            row.pop()
        elif action == 2:
            rows.append(list(row))
        elif action == 3:
            separator = pick((",", ";", "\t", "|", " "), rng)
        else:
            row[int(rng.integers(len(row)))] = str(pick(ODD_VALUES, rng))
    return "\n".join(separator.join(row) for row in rows).encode("utf-8", "surrogatepass")


TABLE: tuple[Mutator, ...] = (cells, cells, cells, characters, any_bytes)

# --- DICOM ---------------------------------------------------------------------------------------

_ODD_BY_VR: dict[str, tuple[Any, ...]] = {
    "DS": ("1e308", "-1e308", "nan", "inf", "0", "-1", "1e-300", "", "abc", "1\\2\\3\\4\\5\\6\\7"),
    "IS": ("-1", "0", "1", "2", "7", "2147483647", "99999999999999", "x", "1e400", ""),
    "US": (0, 1, 2, 7, 8, 15, 255, 32768, 65535),
    "UL": (0, 1, 7, 2**31, 2**32 - 1),
    "SS": (0, 1, -1, 32767, -32768),
    "FD": (0.0, 1.0, -1.0, float("nan"), float("inf"), 1e300),
    "UI": ("", "1.2.3", "0" * 64, "1.2.840.10008.1.2.1.99", "1.2.840.10008.5.1.4.1.1.7"),
    "CS": ("", "SEG", "MONOCHROME1", "PALETTE COLOR", "LOCALIZER", "RGB", "POINT", "FRACTIONAL",
           "CLOSED_PLANAR", "INTERPOLATED_PLANAR", "OPEN_PLANAR", "CLOSEDPLANAR_XOR", "LABELMAP"),
    "LO": ("", "\x1b[31m", "ÿ" * 64, "a\nb", "x" * 64),
    "SH": ("", "\x1b[31m", "ÿ" * 16, "a\\b"),
    "PN": ("", "a=b=c"),
    "AT": (0, 0x00200032, 0xFFFFFFFF),
}  # fmt: skip
# Attributes that change voxels, or their place, wherever they are added.
_ADDED = (
    ("RescaleSlope", "DS", ("2", "0", "-1")), ("RescaleIntercept", "DS", ("5", "nan")),
    ("PixelPaddingValue", "US", (0, 63536, 7)), ("NumberOfFrames", "IS", ("0", "1", "2", "-1")),
    ("TemporalPositionIdentifier", "IS", ("1", "9")), ("PlanarConfiguration", "US", (0, 1)),
    ("PhotometricInterpretation", "CS", ("MONOCHROME1", "RGB", "PALETTE COLOR")),
    ("SpacingBetweenSlices", "DS", ("1", "0", "-2.5")), ("SamplesPerPixel", "US", (0, 2, 3)),
    ("PixelAspectRatio", "IS", (["2", "1"],)), ("Modality", "CS", ("MR", "PT", "OT", "")),
    ("RescaleType", "LO", ("HU", "US", "OD")), ("GantryDetectorTilt", "DS", ("15",)),
    ("DimensionOrganizationType", "CS", ("TILED_FULL", "3D")),
    ("SegmentsOverlap", "CS", ("YES", "NO")), ("MaximumFractionalValue", "US", (0, 1, 255)),
)  # fmt: skip


def attributes(content: bytes, rng: np.random.Generator, others: Sequence[bytes] = ()) -> bytes:
    """A DICOM file: some elements, of any depth, deleted, emptied or given odd values."""
    import pydicom

    try:
        dataset = pydicom.dcmread(io.BytesIO(content))
        for _ in range(int(rng.choice([1, 1, 2, 3]))):
            _change_attribute(dataset, rng)
        changed = io.BytesIO()
        dataset.save_as(changed, enforce_file_format=False)
        return changed.getvalue()
    except Exception:  # pydicom will not write all that can lie on a disk
        return any_bytes(content, rng, others)


def _elements(dataset: Any, depth: int = 0) -> Iterator[tuple[Any, Any]]:
    for element in dataset:
        yield dataset, element.tag
        if element.VR == "SQ" and depth < 5:
            for item in element.value:
                yield from _elements(item, depth + 1)


def _change_attribute(dataset: Any, rng: np.random.Generator) -> None:
    import pydicom

    action = int(rng.integers(7))
    if action == 0:
        keyword, vr, odd = pick(_ADDED, rng)
        tag = pydicom.datadict.tag_for_keyword(keyword)
        dataset[tag] = pydicom.DataElement(tag, vr, pick(odd, rng), validation_mode=0)
        return
    where, tag = pick(list(_elements(dataset)), rng)
    # An attribute of the image, rather than of its patient, in most cases.
    if tag.group < 0x18 and rng.random() < 0.7:
        where, tag = pick(list(_elements(dataset)), rng)
    element = where[tag]
    if action == 1 or (action == 2 and element.VR == "SQ" and not element.value):
        del where[tag]
    elif action == 2:
        where[tag] = pydicom.DataElement(tag, element.VR, [] if element.VR == "SQ" else None)
    elif element.VR == "SQ":
        keep = rng.permutation(len(element.value))[: int(rng.integers(len(element.value) + 1))]
        element.value = [element.value[int(n)] for n in keep]
    elif element.VR in _ODD_BY_VR:
        odd = pick(_ODD_BY_VR[element.VR], rng)
        if element.VM > 1 and rng.random() < 0.7:
            several = [
                str(value) if element.VR in ("DS", "IS") else value for value in element.value
            ]
            several[int(rng.integers(len(several)))] = odd
            odd = several
        where[tag] = pydicom.DataElement(tag, element.VR, odd, validation_mode=0)


DICOM: tuple[Mutator, ...] = (*(attributes,) * 6, *(any_bytes,) * 3)

# --- Zip files and models ------------------------------------------------------------------------


def zip_entries(content: bytes, rng: np.random.Generator, others: Sequence[bytes] = ()) -> bytes:
    """A zip file of one entry damaged, left out, doubled or renamed, packed anew."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = [(info.filename, archive.read(info)) for info in archive.infolist()]
    n, action = int(rng.integers(len(entries))), int(rng.integers(5))
    name, inner = entries[n]
    if action == 0:
        del entries[n]
    elif action == 1:
        entries.append((name, any_bytes(inner, rng)))
    elif action == 2:
        names = ("../" + name, "/" + name, "\\..\\x", "a" * 300 + name, "x\n" + name, "", ".", name)
        entries[n] = pick(names, rng), inner
    else:
        entries[n] = name, pick((any_bytes, attributes), rng)(inner, rng)
    return _zipped(entries)


def _zipped(entries: Sequence[tuple[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, inner in entries:
            archive.writestr(zipfile.ZipInfo(name), inner, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


ZIP: tuple[Mutator, ...] = (zip_entries, zip_entries, any_bytes)

_DIGEST = 64
_SEAL = b"leanseg sha256:"


def sealed(inner: Mutator) -> Mutator:
    """Damage to the bytes of a model file, under a right seal."""

    def mutate(content: bytes, rng: np.random.Generator, others: Sequence[bytes]) -> bytes:
        body = inner(content[: -_DIGEST - len(_SEAL)], rng, [o[:-_DIGEST] for o in others]) + _SEAL
        return body + sha256(body).hexdigest().encode()

    return mutate


def model_entry(which: str, inner: Sequence[Mutator]) -> Mutator:
    """Damage to what one entry of a model file holds, packed and sealed as training does."""

    def mutate(content: bytes, rng: np.random.Generator, others: Sequence[bytes]) -> bytes:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = {info.filename: archive.read(info) for info in archive.infolist()}
        name = pick([name for name in entries if which in name], rng)
        if rng.random() < 0.05:
            del entries[name]
        else:
            entries[name] = pick(inner, rng)(entries[name], rng, ())
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
            for key, value in entries.items():
                archive.writestr(zipfile.ZipInfo(key), value)
            archive.comment = _SEAL + b"0" * _DIGEST
        body = buffer.getvalue()[:-_DIGEST]
        return body + sha256(body).hexdigest().encode()

    return mutate


def tensors(content: bytes, rng: np.random.Generator, others: Sequence[bytes] = ()) -> bytes:
    """A safetensors file whose header, or whose numbers, are others."""
    length = int.from_bytes(content[:8], "little")
    header, numbers = content[8 : 8 + length], bytearray(content[8 + length :])
    if rng.random() < 0.6:
        header = json_nodes(header, rng)
    else:
        odd = np.array(pick((np.nan, np.inf, 3e38, 0, -1e30), rng), np.float32).tobytes()
        at = 4 * int(rng.integers(len(numbers) // 4))
        numbers[at : at + 4] = odd
    return len(header).to_bytes(8, "little") + header + bytes(numbers)


MODEL: tuple[Mutator, ...] = (
    *(sealed(any_bytes),) * 3,
    *(model_entry("manifest.json", JSON),) * 5,
    *(model_entry("safetensors", (tensors, tensors, any_bytes)),) * 3,
    *(model_entry("onnx", (any_bytes,)),) * 2,
)
RAW_MODEL: tuple[Mutator, ...] = BYTES
NIFTI: tuple[Mutator, ...] = (
    *(gzipped(nifti_field),) * 4,
    *(gzipped(any_bytes),) * 3,
    *(any_bytes,) * 2,
)
ITK: tuple[Mutator, ...] = (*(text_header,) * 5, characters, *(any_bytes,) * 2)
