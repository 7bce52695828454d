"""The memory contract: amounts, settings, and real processes under real ceilings."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leanseg.errors import MemoryCeilingError, RecipeError
from leanseg.inference import load_model
from leanseg.inference.budget import Budget, parse_bytes, settings_for
from leanseg.modelfile import Member, ModelFile, NetworkSpec, write_model
from leanseg.preprocessing import Plan, Postprocessing
from leanseg.volumes import Volume, read_volume
from leanseg.volumes.promise import Promise
from memory_watch import NINE, nine_class_model, watch, write_large_scan

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
AFFINE = np.diag([-0.8, -0.8, 1.0, 1.0])
MB = 1_000_000


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
    name: str = "openvino"

    def memory_bytes(self) -> int:
        return self.lanes * 22 * MB + 12 * MB


def a_model(**options) -> ModelFile:
    plan = Plan(**{"labels": NINE, "slice_shape": (256, 256), **options})
    spec = NetworkSpec(name="unet-16", in_channels=1, out_channels=plan.n_outputs)
    return ModelFile.of(plan, Member(spec, {}), path=Path("model.leanseg"))


def a_promise(shape: tuple[int, ...], dtype: type = np.int16) -> Promise:
    array = np.broadcast_to(np.zeros((), dtype), shape)
    return Promise(Volume(array, AFFINE, Path("scan.nii.gz")), 0)


def settled(ceiling: int, shape=(512, 512, 100), **options):
    model = a_model(**options.pop("plan", {}))
    return settings_for(
        model,
        FakeEngine(**options.pop("engine", {})),
        a_promise(shape),
        Budget(ceiling),
        resident=200 * MB,
        **options,
    )


def test_settings_become_smaller_with_the_ceiling() -> None:
    scan = a_promise((512, 512, 100))
    found = [settled(ceiling * MB, largest=scan) for ceiling in (1000, 385, 368, 352)]
    assert [(s.prefetch, s.lanes, s.threads) for s in found] == [
        (True, 2, 2),
        (False, 2, 2),
        (False, 1, 2),
        (False, 1, 1),
    ]
    needs = [s.need_bytes for s in found]
    assert needs == sorted(needs, reverse=True)


def test_nothing_is_prefetched_without_knowing_what() -> None:
    assert not settled(10**10).prefetch


@given(st.integers(200, 2000), st.integers(1, 900), st.integers(1, 4), st.booleans())
def test_a_ceiling_is_kept_or_the_scan_refused_with_what_it_needs(
    ceiling_mb: int, n_slices: int, lanes: int, with_largest: bool
) -> None:
    arguments = {
        "shape": (512, 512, n_slices),
        "engine": {"lanes": lanes},
        "plan": {"postprocessing": Postprocessing(largest_component=with_largest)},
    }
    try:
        settings = settled(ceiling_mb * MB, **arguments)
    except MemoryCeilingError as error:
        text = str(error)
        assert text.startswith("scan.nii.gz: needs at least ")
        assert f"--max-memory allows {ceiling_mb:,d} MB" in text
        least = int(re.search(r"at least ([\d,]+) MB", text)[1].replace(",", ""))
        assert least > ceiling_mb
        # What the message names is enough indeed.
        assert settled(least * MB, **arguments).need_bytes <= least * MB
    else:
        assert settings.need_bytes <= ceiling_mb * MB
        scan_and_labels = 512 * 512 * n_slices * 3
        assert settings.need_bytes > 200 * MB + scan_and_labels
        assert 1 <= settings.lanes <= lanes


def test_a_network_at_work_before_is_not_counted_twice() -> None:
    cold, warm = settled(10**10), settled(10**10, lanes_ready=2)
    assert cold.need_bytes - warm.need_bytes > 2 * 20 * MB


def test_a_scan_in_memory_is_not_counted_twice() -> None:
    unread, read = settled(10**10), settled(10**10, is_read=True)
    assert unread.need_bytes - read.need_bytes == 512 * 512 * 100 * 2


def test_dicom_objects_need_memory_while_they_are_written() -> None:
    nifti, seg = (settled(10**10, (512, 512, 800), form=form) for form in ("nifti", "dicom-seg"))
    assert settled(10**10, (512, 512, 800)).need_bytes == nifti.need_bytes
    assert seg.need_bytes > nifti.need_bytes + 200 * MB


def test_largest_components_use_the_memory_of_the_scan() -> None:
    plan = {"postprocessing": Postprocessing(largest_component=True)}
    large = (512, 512, 800)
    assert settled(10**10, large, plan=plan).need_bytes == settled(10**10, large).need_bytes


def test_smaller_blocks_of_tiles() -> None:
    plan = {"tile_shape": (64, 64, 32), "volume_shape": None}
    needs = {}
    ceiling = 10**10
    for _ in range(40):
        try:
            settings = settled(ceiling, plan=plan)
        except MemoryCeilingError:
            break
        needs.setdefault(settings.slices_per_block, settings.need_bytes)
        ceiling = settings.need_bytes - 1
    assert list(needs) == [8, 4, 2, 1]
    assert list(needs.values()) == sorted(needs.values(), reverse=True)


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

    small = watch(*command, "-o", tmp_path / "small", "--max-memory", "195MB")
    assert small.status == 2
    assert f"{scan}: needs at least" in small.err
    assert small.peak_mb <= 195
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
def test_one_scan_too_many_does_not_stop_the_others(nine_classes, tmp_path) -> None:
    folder = tmp_path / "scans"
    folder.mkdir()
    for name, slices in (("a", 10), ("b", 900), ("c", 12)):
        write_large_scan(folder / f"{name}.nii.gz", (256, 256, slices))
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
def test_twenty_scans_in_one_process_do_not_grow(nine_classes: Path, tmp_path: Path) -> None:
    scan = write_large_scan(tmp_path / "scan.nii.gz", (256, 256, 16))
    code = f"""
import json
from leanseg.inference import load_model
from leanseg.inference.memory import give_back_memory, resident_bytes
model = load_model({str(nine_classes)!r}, precision="f32")
held = []
for _ in range(20):
    model.predict({str(scan)!r})
    give_back_memory()
    held.append(resident_bytes())
print(json.dumps(held))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    held = np.array(json.loads(done.stdout)) / MB
    # Fifteen forgotten label maps would be 15 MB.
    assert held[10:].max() < held[2:5].max() + 4, held


@LINUX
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


def test_pytorch_tells_its_memory_without_an_exported_network(tmp_path) -> None:
    path = nine_class_model(tmp_path / "new.leanseg", 32)
    from leanseg.modelfile import read_model

    new = read_model(path)
    write_model(
        tmp_path / "old.leanseg", ModelFile.of(new.plan, replace(new.members[0], exported=None))
    )
    model = load_model(tmp_path / "old.leanseg", engine="torch", max_memory="20GB")
    assert model.predict(np.zeros((32, 32, 2), dtype=np.int16), AFFINE).shape == (32, 32, 2)


@LINUX
@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("largest_component", [False, True])
def test_a_long_scan_of_nine_classes_in_a_gigabyte(tmp_path: Path, largest_component) -> None:
    """The bar: 512 x 512 x 824, nine classes, under 1 GB, and time linear in slices."""
    options = {"postprocessing": Postprocessing(largest_component=largest_component)}
    model = nine_class_model(tmp_path / "nine.leanseg", **options)
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
