"""The memory contract: amounts, ways, and real processes under real ceilings."""

from __future__ import annotations

import gc
import json
import mmap
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leanseg.errors import MemoryCeilingError, RecipeError
from leanseg.inference import load_model
from leanseg.inference.formats import FORMATS
from leanseg.inference.memory import (
    Ceiling,
    parse_bytes,
    peak_memory_mb,
    reset_peak,
    resident_bytes,
)
from leanseg.modelfile import write_model
from leanseg.plan import HounsfieldWindow
from leanseg.volumes import Volume, read_volume
from leanseg.volumes.volume import StoredVolume
from memory_watch import NINE, nine_class_model, watch, write_large_scan
from plans import patches, slices, whole

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
AFFINE = np.diag([-0.8, -0.8, 1.0, 1.0])
MB = 1_000_000


@pytest.fixture(autouse=True)
def _nothing_old_is_collected() -> Iterator[None]:
    """A ceiling collects garbage before it measures; what other tests left would take long."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [
        ("1GB", 10**9),
        ("1 GiB", 2**30),
        ("800MB", 8 * 10**8),
        ("1.5gb", 15 * 10**8),
        (" 512 mib ", 2**29),
        (".5TB", 5 * 10**11),
        ("4096B", 4096),
        ("2kB", 2000),
    ],
)
def test_amounts(text: str, n_bytes: int) -> None:
    assert parse_bytes(text) == n_bytes


@pytest.mark.parametrize("text", ["1", "1000000000", "1.5"])
def test_plain_numbers_are_refused(text: str) -> None:
    with pytest.raises(RecipeError, match=f"has no unit; write for example {text}GB or {text}MB"):
        parse_bytes(text)


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "1 GB of it", "1XB", "0GB", "1e9B", "1,5GB"])
def test_what_is_no_amount(text: str) -> None:
    with pytest.raises(RecipeError, match="is no amount of memory; write for example 1GB"):
        parse_bytes(text)


@dataclass
class FakeEngine:
    """As far as its memory goes."""

    lanes: int = 2
    batch_size: int = 1
    passes: int = 1
    need: int = 22 * MB
    name: str = "openvino"

    def memory_bytes(self) -> int:
        return self.lanes * self.need

    def release(self) -> None: ...


def stored(shape: tuple[int, ...], *, streams: bool = True, name: str = "scan") -> StoredVolume:
    def slabs(planes: int, start: int):
        raise AssertionError("nothing is read")

    dtype = np.dtype(np.int16)
    return StoredVolume(
        Path(f"{name}.nii.gz"), shape, dtype, AFFINE, slabs, slabs if streams else None
    )


def settled(ceiling: int, shape=(512, 512, 100), plan=None, lanes: int = 2, **options):
    """The way under a ceiling above what this process holds."""
    plan = plan or slices((256, 256), NINE, window=HounsfieldWindow())
    scan = options.pop("scan", None) or stored(shape, streams=options.pop("streams", True))
    held = resident_bytes()
    way = Ceiling(held + ceiling).way(scan, plan, {"main": FakeEngine(lanes)}, **options)
    return way, way.need_bytes - held


def test_ways_become_smaller_with_the_ceiling() -> None:
    following = stored((512, 512, 100), name="next")
    found = [settled(n * MB, next_scan=following)[0] for n in (1000, 190, 140, 108)]
    assert [(way.prefetch, way.streams, way.lanes) for way in found] == [
        (True, False, None),
        (False, False, None),
        (False, True, None),
        (False, True, 1),
    ]


def test_nothing_is_prefetched_without_knowing_what() -> None:
    assert not settled(10**10)[0].prefetch


def test_a_large_scan_is_streamed_and_takes_its_label_map_alone() -> None:
    way, need = settled(10**10, (512, 512, 1059))
    voxels = 512 * 512 * 1059
    assert way.streams
    assert voxels < need < voxels + 150 * MB
    way, whole = settled(10**10, (512, 512, 1059), streams=False)
    assert not way.streams
    assert whole > 3 * voxels


@given(st.integers(50, 2000), st.integers(1, 900), st.integers(1, 4), st.booleans())
def test_a_ceiling_is_kept_or_the_scan_refused_with_what_it_needs(
    ceiling_mb: int, n_slices: int, lanes: int, with_largest: bool
) -> None:
    plan = slices((256, 256), NINE, window=HounsfieldWindow(), largest_component=with_largest)
    scan, engines = stored((512, 512, n_slices), streams=False), {"main": FakeEngine(lanes)}
    ceiling = Ceiling(resident_bytes() + ceiling_mb * MB)
    try:
        way = ceiling.way(scan, plan, engines)
    except MemoryCeilingError as error:
        text = str(error)
        assert text.startswith("scan.nii.gz: needs at least ")
        least = int(re.search(r"at least ([\d,]+) MB", text)[1].replace(",", ""))
        assert least * MB > ceiling.limit_bytes
        # What the message names is enough indeed.
        assert Ceiling((least + 10) * MB).way(scan, plan, engines).need_bytes <= (least + 10) * MB
    else:
        assert way.need_bytes <= ceiling.limit_bytes
        assert way.need_bytes > ceiling.limit_bytes - ceiling_mb * MB + 512 * 512 * n_slices * 3


def test_a_scan_in_memory_is_not_counted_twice() -> None:
    array = np.broadcast_to(np.int16(0), (512, 512, 100))
    unread, read = settled(10**10)[1], settled(10**10, scan=Volume(array, AFFINE))[1]
    assert unread - read == pytest.approx(array.size * 2, abs=2 * MB)


def test_dicom_objects_need_memory_while_they_are_written() -> None:
    scan = stored((512, 512, 800), streams=False)
    nifti, seg = (
        settled(
            10**10,
            scan=scan,
            writing_bytes=FORMATS[form].memory_bytes(scan, dict.fromkeys(NINE, (1,))),
        )[1]
        for form in ("nifti", "dicom-seg")
    )
    assert seg > nifti + 200 * MB


def test_probabilities_take_two_bytes_an_output() -> None:
    plain, kept = settled(10**10)[1], settled(10**10, save_probabilities=True)[1]
    assert kept - plain == pytest.approx(512 * 512 * 100 * 9 * 2, abs=2 * MB)


def test_patches_in_smaller_blocks() -> None:
    plan = patches((64, 64, 32), NINE, window=HounsfieldWindow())
    needs, ceiling = [], 10**10
    for _ in range(5):
        try:
            needs.append(settled(ceiling, plan=plan)[1])
        except MemoryCeilingError:
            break
        ceiling = needs[-1] - 5 * MB
    assert len(needs) >= 2
    assert needs == sorted(needs, reverse=True)


@pytest.mark.parametrize("network", ["slices", "region"])
def test_every_shape_of_kits19_has_room_in_one_and_a_half_gigabytes(
    shared_data: Path, network: str
) -> None:
    """MoNet, and an ensemble of four whole-region networks of 620 MB, as OBELISK's are."""
    found = json.loads((shared_data / "kits19_masks" / "shapes.json").read_text())
    shapes = found.values() if isinstance(found, dict) else found
    ct = {"window": HounsfieldWindow()}
    plan = {
        "slices": slices((256, 256), 1, **ct),
        "region": whole((144, 144, 144), NINE, orientation="LAI", around="abdomen", **ct),
    }[network]
    engine = FakeEngine() if network == "slices" else FakeEngine(1, passes=4, need=620 * MB)
    # What a process with a model and its engine holds.
    ceiling = Ceiling(resident_bytes() + 1500 * MB - 200 * MB)
    assert len(list(shapes)) == 210
    for shape in shapes:
        depth, *in_plane = shape["shape"] if isinstance(shape, dict) else shape
        ceiling.way(stored((*in_plane, depth)), plan, {"main": engine})


def test_memory_of_a_graph_by_hand() -> None:
    """Three layers in a row and a shortcut: at most three results are needed at once."""
    from openvino import Core, Model
    from openvino import opset13 as operators

    from leanseg.inference.engines.working_memory import compiled_bytes

    image = operators.parameter([1, 1, 64, 64], np.float32, name="image")
    kernel = np.ones((4, 1, 3, 3), dtype=np.float32)
    last_kernel = np.ones((1, 4, 3, 3), dtype=np.float32)

    def convolved(x, weights):
        return operators.convolution(x, weights, [1, 1], [1, 1], [1, 1], [1, 1])

    wide = convolved(image, kernel)
    narrow = convolved(operators.sigmoid(wide), last_kernel)
    graph = Model([narrow], [image], "by hand")
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    found = compiled_bytes(Core().compile_model(graph, "CPU", settings))
    plane = 4 * 64 * 64
    # Input and 4 channels, or 4 channels and output; layouts may be changed in between.
    assert 5 * plane <= found <= 10 * plane


@pytest.fixture(scope="module")
def nine_classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nine_class_model(tmp_path_factory.mktemp("model") / "nine.leanseg", slice_side=128)


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_large_scan(tmp_path_factory.mktemp("scan") / "scan.nii.gz", (256, 256, 120))


def least_mb(text: str) -> int:
    return int(re.search(r"needs at least ([\d,]+) MB", text)[1].replace(",", ""))


@LINUX
@pytest.mark.slow
def test_processes_stay_under_their_ceilings(nine_classes: Path, scan: Path, tmp_path) -> None:
    command = ("predict", nine_classes, scan, "--precision", "f32")
    free = watch(*command, "-o", tmp_path / "free")
    assert free.status == 0, free.err
    expected = read_volume(tmp_path / "free" / "scan.nii.gz").array
    assert len(np.unique(expected)) > 1

    tiny = watch(*command, "-o", tmp_path / "tiny", "--max-memory", "100MB")
    assert tiny.status == 2
    assert tiny.err.count("\n") == 1
    assert f"{nine_classes}: needs at least" in tiny.err
    assert "allows 100 MB" in tiny.err
    assert tiny.peak_mb <= 100
    assert not (tmp_path / "tiny").exists()

    small = watch(*command, "-o", tmp_path / "small", "--max-memory", "188MB")
    assert small.status == 2
    assert f"{scan}: needs at least" in small.err
    assert small.peak_mb <= 188
    assert not (tmp_path / "small" / "scan.nii.gz").exists()

    # Just what it says it needs, a little more, and plenty.
    least = least_mb(small.err)
    for ceiling in (least + 2, least + 30, 1000):
        folder = tmp_path / str(ceiling)
        kept = watch(*command, "-o", folder, "--max-memory", f"{ceiling}MB")
        assert kept.status == 0, kept.err
        assert kept.peak_mb <= ceiling
        np.testing.assert_array_equal(read_volume(folder / "scan.nii.gz").array, expected)


@LINUX
@pytest.mark.slow
def test_one_scan_too_many_does_not_stop_the_others(nine_classes, tmp_path) -> None:
    folder = tmp_path / "scans"
    folder.mkdir()
    for name, depth in (("a", 10), ("b", 2400), ("c", 12)):
        write_large_scan(folder / f"{name}.nii.gz", (256, 256, depth))
    ceiling = 260
    done = watch("predict", nine_classes, folder, "-o", tmp_path / "out", "--precision", "f32",
                 "--max-memory", f"{ceiling}MB")  # fmt: skip
    assert done.status == 1
    assert done.peak_mb <= ceiling
    assert "2 of 3 label maps" in done.out
    assert f"failed: b: {folder / 'b.nii.gz'}: needs at least" in done.out
    names = {path.name for path in (tmp_path / "out").glob("*.nii.gz")}
    assert names == {"a.nii.gz", "c.nii.gz"}


@LINUX
@pytest.mark.slow
def test_twenty_scans_in_one_process_do_not_grow(nine_classes: Path, tmp_path: Path) -> None:
    scan = write_large_scan(tmp_path / "scan.nii.gz", (256, 256, 16))
    code = f"""
import json
from leanseg.inference import load_model
from leanseg.inference.memory import resident_bytes
from leanseg.runtime import return_freed_memory
model = load_model({str(nine_classes)!r}, precision="f32")
held = []
for _ in range(20):
    model.predict({str(scan)!r})
    return_freed_memory()
    held.append(resident_bytes())
print(json.dumps(held))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    held = np.array(json.loads(done.stdout)) / MB
    # Fifteen forgotten label maps would be 15 MB.
    assert held[10:].max() < held[2:5].max() + 4, held


@LINUX
@pytest.mark.slow
def test_a_dicom_segmentation_under_its_ceiling(nine_classes: Path, tmp_path: Path) -> None:
    from dicom_writer import write_series

    source = read_volume(write_large_scan(tmp_path / "scan.nii.gz", (256, 256, 60)))
    in_lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ source.affine
    write_series(tmp_path / "ct", source.array, in_lps, dtype="<u2", bits_stored=12)
    command = ("predict", nine_classes, tmp_path / "ct", "--precision", "f32")
    command = (*command, "--format", "dicom-seg", "-o", tmp_path / "out")
    refused = watch(*command, "--max-memory", "200MB")
    assert refused.status == 2
    assert refused.peak_mb <= 200
    ceiling = least_mb(refused.err) + 2
    kept = watch(*command, "--max-memory", f"{ceiling}MB")
    assert kept.status == 0, kept.err
    assert kept.peak_mb <= ceiling


def test_python_api(nine_classes: Path) -> None:
    with pytest.raises(RecipeError, match="has no unit"):
        load_model(nine_classes, max_memory="1")
    with pytest.raises(MemoryCeilingError, match=f"{nine_classes.name}: needs at least"):
        load_model(nine_classes, max_memory="30MB")
    model = load_model(nine_classes, precision="f32", max_memory=3 * 10**9)
    voxels = np.zeros((64, 64, 5), dtype=np.int16)
    voxels[20:40, 20:40] = 100
    assert model.predict(voxels, AFFINE).shape == (64, 64, 5)
    huge = np.broadcast_to(np.int16(0), (2000, 2000, 1000))
    with pytest.raises(MemoryCeilingError, match=r"the scan: needs at least [\d,]+ MB"):
        model.predict(huge, AFFINE)


def test_pytorch_tells_its_memory_without_an_exported_network(nine_classes, tmp_path) -> None:
    from leanseg.modelfile import ModelFile, read_model

    new = read_model(nine_classes)
    bare = replace(new.members[0], exported=None)
    write_model(tmp_path / "old.leanseg", ModelFile.of(new.plan, bare))
    model = load_model(tmp_path / "old.leanseg", engine="torch", max_memory="20GB")
    assert model.predict(np.zeros((32, 32, 2), dtype=np.int16), AFFINE).shape == (32, 32, 2)


@LINUX
@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("largest_component", [False, True])
def test_a_long_scan_of_nine_classes_in_a_gigabyte(tmp_path: Path, largest_component) -> None:
    """The bar: 512 x 512 x 824, nine classes, under 1 GB, and time linear in slices."""
    model = nine_class_model(tmp_path / "nine.leanseg", largest_component=largest_component)
    seconds = {}
    for n_slices in (206, 412, 824):
        scan = write_large_scan(tmp_path / f"{n_slices}.nii.gz", (512, 512, n_slices))
        done = watch("predict", model, scan, "-o", tmp_path / "out", "--max-memory", "1GB")
        assert done.status == 0, done.err
        assert done.peak_mb <= 1000
        seconds[n_slices] = done.seconds
    assert read_volume(tmp_path / "out" / "824.nii.gz").shape == (512, 512, 824)
    # Start included, so that twice the slices take less than twice the time, or little more.
    assert seconds[824] < 1.3 * 2 * seconds[412]
    assert seconds[412] < 1.3 * 2 * seconds[206]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux can start afresh")
def test_the_peak_is_that_of_the_work_since_the_reset() -> None:
    if not reset_peak():
        pytest.skip("this system does not let a process reset its peak")
    before = peak_memory_mb()
    assert before == pytest.approx(psutil.Process().memory_info().rss / 1e6, abs=5)
    # Straight from the system: an allocator may keep what it was given back.
    block = mmap.mmap(-1, 60_000_000)
    for start in range(0, len(block), mmap.PAGESIZE):
        block[start] = 1
    assert peak_memory_mb() == pytest.approx(before + 60, abs=6)
    block.close()
    assert peak_memory_mb() == pytest.approx(before + 60, abs=6)
    reset_peak()
    assert peak_memory_mb() < before + 30
