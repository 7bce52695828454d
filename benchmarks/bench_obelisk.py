"""The compiled OBELISK layer against `grid_sample`, and the 3-D networks in every engine.

Every job and way runs in a process of its own, which gives its peak memory, and the two ways of
a job take turns, one run each, so that what else the machine does falls on both alike. Prints a
Markdown table: medians of the wall time, of the processor time of all threads, and the peak of
the process above where it stood before the first run (weights, images, torch and numba). On the
CPU `grid_sample` uses one thread per image; so on a machine with other work the processor times
tell more. Layers run with the allocator as it comes, networks as leanseg runs them, with blocks
kept (`leanseg.runtime`) and channels last.

A second table has the latency of 3-D networks per engine and precision, warm and in memory: from
the array that the network sees to the array of probabilities, through a model file with random
weights, or through those given with `--models`. "changed" is the share of voxels whose label is
not that of PyTorch in float32.

    python benchmarks/bench_obelisk.py [--threads 2] [--rounds 5] [--size 144] [--jobs layer ...]
    python benchmarks/bench_obelisk.py --jobs engines [--models MODEL ...]
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from bench_training_step import machine

WAYS = ("grid_sample", "compiled")
WARMING = 1
ENGINES = (("torch", "f32"), ("openvino", "f32"), ("openvino", "bf16"), ("onnxruntime", "f32"))
NETWORKS = (
    "obelisk-hybrid-tcia",
    "obelisk-hybrid-visceral",
    "obelisk",
    "allconv-unet-tcia",
    "dense-vnet",
)


def layer_inputs(size: int, wanted: bool, of_images: bool) -> list[Any]:
    """One image, 1,024 pairs of offsets, the weight of 256 outputs in 4 groups."""
    import torch

    generator = torch.Generator().manual_seed(0)
    images = torch.randn(1, 1, size, size, size, generator=generator)
    offsets = 0.05 * torch.randn(1, 1024, 2, 3, generator=generator)
    weight = torch.randn(256, 256, generator=generator) / 16
    images.requires_grad_(of_images)
    return [images, offsets.requires_grad_(wanted), weight.requires_grad_(wanted)]


def make_layer(way: str, size: int, *, backward: bool, of_images: bool = False) -> Any:
    """Sample every fourth voxel at all pairs and convolve; with gradients, and the image's."""
    import torch

    from leanseg.networks.obelisk_sampling import obelisk_convolution, reference_convolution

    inputs = layer_inputs(size, backward, of_images)
    axis = torch.arange(0, size, 4) * 2 / (size - 1) - 1
    function: Callable[..., Any] = obelisk_convolution
    if way == "grid_sample":
        function = reference_convolution

    def run() -> None:
        result = function(*inputs, (axis, axis, axis), groups=4)
        if backward:
            wanted = [each for each in inputs if each.requires_grad]
            torch.autograd.grad(result.sum(), wanted)

    return run


def make_network(way: str, size: int, *, name: str, training: bool) -> Any:
    """A whole network with 9 classes: logits of one image, or a training step on them."""
    import torch
    from torch.nn import functional

    from leanseg.networks import build, obelisk_sampling

    if way == "grid_sample":
        obelisk_sampling._compiled_loops = lambda _: False
    network = build(name, out_channels=9, generator=torch.Generator().manual_seed(0))
    network = network.to(memory_format=torch.channels_last_3d).train(training)
    images = torch.randn(1, 1, size, size, size)
    target = torch.randint(9, (1, size, size, size))
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)

    def run() -> None:
        if not training:
            with torch.inference_mode():
                network(images)
            return
        optimiser.zero_grad()
        functional.cross_entropy(network(images), target).backward()
        optimiser.step()

    return run


def jobs() -> dict[str, Callable[[str, int], Any]]:
    """Name to a function of way and size that prepares a run."""
    found: dict[str, Callable[[str, int], Any]] = {
        "layer, forward": lambda way, size: make_layer(way, size, backward=False),
        "layer, forward and backward": lambda way, size: make_layer(way, size, backward=True),
        "layer, forward and backward, image too": lambda way, size: make_layer(
            way, size, backward=True, of_images=True
        ),
    }
    for name in ("obelisk", "obelisk-hybrid-tcia", "obelisk-hybrid-visceral"):
        for training, what in ((False, "inference"), (True, "training step")):
            found[f"{name}, {what}"] = lambda way, size, name=name, training=training: make_network(
                way, size, name=name, training=training
            )
    return found


def serve(pipe: Connection, job: str, way: str, threads: int, size: int) -> None:
    """Run whenever asked; answer with wall seconds, processor seconds, MiB above the start."""
    import torch

    from leanseg.runtime import keep_large_blocks

    if not job.startswith("layer"):
        keep_large_blocks()
    torch.set_num_threads(threads)
    jobs()[job](way, 16)()  # loads and compiles what the job needs
    run = jobs()[job](way, size)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    while pipe.recv():
        wall, processor = time.perf_counter(), time.process_time()
        run()
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        pipe.send((wall, processor, (peak - before) / 1024))


def random_model(name: str, size: int, path: Path) -> None:
    """A model file of a network with 9 classes, random weights and statistics, exported."""
    import torch

    from leanseg.modelfile import Member, ModelFile, NetworkSpec, write_model
    from leanseg.networks import build
    from leanseg.plan import Axis, Frame, Patch, Plan, Stage
    from leanseg.training.export import export_model

    generator = torch.Generator().manual_seed(0)
    network = build(name, out_channels=9, generator=generator)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    labels = tuple(f"class {number}" for number in range(1, 9))
    axes = (Axis(size=size),) * 3
    patch = Patch("whole", "whole", "whole")
    plan = Plan(stages=(Stage(labels=labels, frame=Frame(axes=axes), patch=patch),))
    spec = NetworkSpec(name=name, in_channels=1, out_channels=9)
    weights = {key: tensor.numpy() for key, tensor in network.state_dict().items()}
    model = export_model(ModelFile.of(plan, Member(spec, weights)))
    write_model(path, model)


def serve_engine(pipe: Connection, path: Path, way: tuple[str, str], threads: int) -> None:
    """As `serve`, for a model file in an engine; the first answer is the labels."""
    import numpy as np
    from scipy import ndimage

    from leanseg.inference import make_engine
    from leanseg.modelfile import read_model
    from leanseg.training.export import network_labels

    model = read_model(path)
    name, precision = way
    engine = make_engine(model, name=name, precision=precision, threads=threads)
    shape = model.plan.final.network_shape
    noise = np.random.default_rng(0).normal(size=shape)
    image = 6 * ndimage.gaussian_filter(noise, 3) + 0.1 * noise
    image = image.astype(np.float32)[None, None]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pipe.send(network_labels(engine.run(image)))
    while pipe.recv():
        wall, processor = time.perf_counter(), time.process_time()
        engine.run(image)
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        pipe.send((wall, processor, (peak - before) / 1024))


def compare_engines(name: str, path: Path, arguments: argparse.Namespace) -> None:
    """Print the rows of one model."""
    context = multiprocessing.get_context("spawn")
    pipes, workers, labels = {}, [], {}
    for way in ENGINES:
        pipes[way], far_end = context.Pipe()
        values = (far_end, path, way, arguments.threads)
        worker = context.Process(target=serve_engine, args=values, daemon=True)
        worker.start()
        far_end.close()
        workers.append(worker)
        try:
            labels[way] = pipes[way].recv()
        except EOFError:  # not installed, or not on this processor
            del pipes[way]
    answers: dict[tuple[str, str], list[tuple[float, ...]]] = {way: [] for way in pipes}
    for turn in range(arguments.rounds + WARMING):
        for way, pipe in pipes.items():
            pipe.send(True)
            answer = pipe.recv()
            if turn >= WARMING:
                answers[way].append(answer)
    for pipe in pipes.values():
        pipe.send(False)
    for worker in workers:
        worker.join(10)
    for way, found in answers.items():
        walls, processors, peaks = zip(*found, strict=True)
        changed = (labels[way] != labels[ENGINES[0]]).mean()
        print(
            f"| {name} | {' '.join(way)} | {statistics.median(walls):.3f} "
            f"| {statistics.median(processors):.3f} | {max(peaks):.0f} | {100 * changed:.3f} % |",
            flush=True,
        )


def engines(arguments: argparse.Namespace) -> None:
    """The second table."""
    print("\n| network | engine | wall s | processor s | peak MiB | changed |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        models = {path.stem: path for path in arguments.models}
        for name in () if models else NETWORKS:
            models[name] = Path(folder) / f"{name}.leanseg"
            # In a process of its own: what PyTorch keeps is not to stay around.
            maker = multiprocessing.get_context("spawn").Process(
                target=random_model, args=(name, arguments.size, models[name])
            )
            maker.start()
            maker.join()
            compare_engines(name, models[name], arguments)
        for name in models if arguments.models else ():
            compare_engines(name, models[name], arguments)


def interleave(job: str, arguments: argparse.Namespace) -> dict[str, list[tuple[float, ...]]]:
    """What each way of a job answers, run by run."""
    context = multiprocessing.get_context("spawn")
    pipes, workers = {}, []
    for way in WAYS:
        pipes[way], far_end = context.Pipe()
        values = (far_end, job, way, arguments.threads, arguments.size)
        worker = context.Process(target=serve, args=values, daemon=True)
        worker.start()
        far_end.close()
        workers.append(worker)
    answers: dict[str, list[tuple[float, ...]]] = {way: [] for way in WAYS}
    for turn in range(arguments.rounds + WARMING):
        for way, pipe in pipes.items():
            pipe.send(True)
            answer = pipe.recv()
            if turn >= WARMING:
                answers[way].append(answer)
    for pipe, worker in zip(pipes.values(), workers, strict=True):
        pipe.send(False)
        worker.join(10)
    return answers


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=144)
    parser.add_argument(
        "--jobs", nargs="*", default=[""], help="names, or how they begin; or 'engines'"
    )
    parser.add_argument("--models", nargs="*", type=Path, default=[], help="for 'engines'")
    arguments = parser.parse_args()
    print(f"Machine: {machine()}, {arguments.threads} threads; {arguments.size} voxels cubed.\n")
    if any("engines".startswith(job) for job in arguments.jobs):
        engines(arguments)
    if arguments.jobs == ["engines"]:
        return
    print("\n| job | way | wall s | processor s | peak MiB | wall ratio | processor ratio |")
    print("|---|---|---|---|---|---|---|")
    for job in jobs():
        if not job.startswith(tuple(arguments.jobs)):
            continue
        medians: dict[str, tuple[float, float]] = {}
        for way, answers in interleave(job, arguments).items():
            walls, processors, peaks = zip(*answers, strict=True)
            medians[way] = wall, processor = statistics.median(walls), statistics.median(processors)
            slow = medians[WAYS[0]]
            print(
                f"| {job} | {way} | {wall:.3f} | {processor:.3f} | {max(peaks):.0f} "
                f"| {slow[0] / wall:.1f} | {slow[1] / processor:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
