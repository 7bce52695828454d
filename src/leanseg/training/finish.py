"""The end of a fold: the model file, and the test cases predicted and scored with it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.numpy import save
from torch import nn

from leanseg.errors import MissingDependencyError
from leanseg.evaluation import EvaluationSettings, Scores, evaluate_masks
from leanseg.evaluation.labels import LabelValues
from leanseg.files import write_json, write_text, written_whole
from leanseg.frames import PreparedCase, class_map, ignored_class
from leanseg.frames.cases import Prepare
from leanseg.inference import Engine, Model, Pipeline, Prediction, make_engine
from leanseg.inference.memory import peak_memory_mb
from leanseg.modelfile import Member, ModelFile, NetworkSpec, Provenance, write_model
from leanseg.networks import count_parameters
from leanseg.networks.cascade import Cascade
from leanseg.progress import Display
from leanseg.runtime import return_freed_memory
from leanseg.training.checkpoint import TrainingState
from leanseg.training.choosing import Choice, choose_decision
from leanseg.training.environment import versions
from leanseg.training.export import export_model
from leanseg.training.export_graph import ExportError
from leanseg.training.folder import (
    END_FILES,
    MODEL_FILE,
    PREDICTIONS_FOLDER,
    RECIPE_FILE,
    SCORES_FILE,
    SUMMARY_FILE,
    SUMS_FILE,
    write_sums,
)
from leanseg.training.recipe import Recipe
from leanseg.training.two_stages import as_stages
from leanseg.volumes import Volume, reoriented_view

if TYPE_CHECKING:
    from leanseg.training.folder import Run

WEIGHTS_FILE = "checkpoint.safetensors"


def finish_fold(
    run: Run,
    number: int,
    network: nn.Module,
    state: TrainingState,
    display: Display,
    warnings: Sequence[str],
    monitor_cases: Sequence[PreparedCase],
    prepare: Prepare | None = None,
) -> Path:
    """Write the best weights as a model file, and score it on the test cases' files.

    The scores come from the model file and the scans on disk, of cases that took no part in
    training nor in the choice of the epoch: they are what a user of the file will see.

    Args:
        run: The run.
        number: Which fold.
        network: Holds the last weights; receives the best ones.
        state: The final training state.
        display: Tells the user.
        warnings: For the report.
        monitor_cases: On which the recipe may have the decision chosen.
        prepare: What makes network input of a test case, where that is not its scan.

    Returns:
        The model file.
    """
    folder, peak_mb = run.fold_folder(number), peak_memory_mb()
    (folder / SUMS_FILE).unlink(missing_ok=True)
    network.load_state_dict(state.best_network)
    weights = {name: each.contiguous().numpy() for name, each in state.best_network.items()}
    with written_whole(folder / WEIGHTS_FILE) as scratch:
        scratch.write_bytes(save(weights))
    path = folder / MODEL_FILE
    draft = _model_file(run, number, state, weights)
    engines = _engines(draft, state)
    choice = _choice(run, folder, engines, monitor_cases, display)
    if choice is not None:
        draft = replace(draft, plan=choice.plan)
    if isinstance(network, Cascade):
        draft = as_stages(draft, network)
        engines = _engines(draft, state)
    file = write_model(path, draft)
    model = Model(file, lambda lanes: engines)
    output = folder / PREDICTIONS_FOLDER
    names = run.splits[number].test
    scores, predictions = score_cases(run, names, output, model, display, prepare)
    scores.to_json(folder / SCORES_FILE)
    scores.to_csv((folder / SCORES_FILE).with_suffix(".csv"))
    means = {label: metrics["dice"]["mean"] for label, metrics in scores.summary.items()}
    scored = replace(file, provenance=file.provenance.model_copy(update={"scores": means}))
    return_freed_memory()
    final = write_model(path, _packaged(run, scored, display))
    write_text(folder / RECIPE_FILE, kept_recipe(run.recipe, number, state).to_yaml())
    counts = count_parameters(network)
    summary = {
        "network": run.recipe.network.name,
        "network_options": run.recipe.network.options,
        "parameters": counts.trainable,
        "keras_total": counts.keras_total,
        **state.outcome,
        "threads": torch.get_num_threads(),
        "intensity": run.plan.final.intensity.model_dump(mode="json"),
        "best_monitor_dice": state.best_dice,
        "decision": None if choice is None else choice.to_json(),
        "train_seconds": state.elapsed_s,
        "train_cpu_seconds": state.cpu_s,
        "peak_memory_mb": peak_mb,
        "model_file": MODEL_FILE,
        "model_bytes": path.stat().st_size,
        "exported": final.is_exported,
        "prediction": {"cases": predictions},
        "warnings": list(warnings),
    }
    write_json(folder / SUMMARY_FILE, summary)
    write_sums(folder, END_FILES)
    return path


def kept_recipe(recipe: Recipe, number: int, state: TrainingState) -> Recipe:
    """The recipe of a fold with what a measurement or the clock decided: it gives the same bits."""
    phases = [
        phase.model_copy(update={"pace": pace or None})
        for phase, pace in zip(recipe.phases, state.pace, strict=False)
    ]
    settled = {"precision": state.precision, "devices": state.processes, "folds": [number]}
    training = recipe.training.model_copy(update=settled)
    return recipe.model_copy(update={"phases": phases, "training": training})


def _model_file(run: Run, number: int, state: TrainingState, weights: dict[str, Any]) -> ModelFile:
    split = run.splits[number]
    network = NetworkSpec(
        name=run.recipe.network.name,
        in_channels=run.plan.input_shape(run.plan.final)[0],
        out_channels=run.plan.final.n_outputs,
        options=run.recipe.network.options,
        activation=run.plan.final.activation,
    )
    provenance = Provenance(
        data_name=run.data.name,
        data_fingerprint=run.data.fingerprint,
        training_cases=split.train,
        monitor_cases=split.monitor,
        test_cases=split.test,
        versions=versions(),
        recipe=kept_recipe(run.recipe, number, state).model_dump(mode="json"),
        training={"fold": number, "seed": run.recipe.training.seed, **state.outcome},
    )
    return ModelFile.of(run.plan, Member(network, weights), provenance=provenance)


def _engines(model: ModelFile, state: TrainingState) -> dict[str, Engine]:
    return {
        stage.name: make_engine(
            model.stages[stage.name],
            name="torch",
            precision=state.engine_precision,
            input_shape=(0, *model.plan.input_shape(stage)),
            allow_imports=True,
        )
        for stage in model.plan.networks
    }


def _choice(
    run: Run,
    folder: Path,
    engines: Mapping[str, Engine],
    monitor_cases: Sequence[PreparedCase],
    display: Display,
) -> Choice | None:
    """How the model decides, chosen where the recipe asks for it; never on test cases."""
    if not run.recipe.training.choose_decision:
        return None
    on_case = display.count("looking at the monitor cases", len(monitor_cases))
    choice = choose_decision(Pipeline(run.plan, engines), monitor_cases, folder, on_case)
    display.say(str(choice))
    return choice


def _packaged(run: Run, model: ModelFile, display: Display) -> ModelFile:
    """The model with its network exported; as it is where that cannot be done."""
    if not run.recipe.packaging.export:
        return model
    display.begin("exporting the network", 1)
    try:
        return export_model(model, allow_imports=True)
    except (ExportError, MissingDependencyError) as error:
        # The hours of training are not thrown away: PyTorch can run what there is.
        display.say(f"the model file needs PyTorch to run: {error}")
        return model


def _of_prepared(model: Model, case: PreparedCase, image: Volume) -> Prediction:
    """The prediction of a case that was prepared, on the grid of its scan."""
    found = model.pipeline.predict_source(case.source)
    turned = reoriented_view(found, model.plan.final.frame.orientation, image.orientation)
    return Prediction(image.with_array(turned))


def score_cases(
    run: Run,
    names: Sequence[str],
    output: Path,
    model: Model,
    display: Display,
    prepare: Prepare | None = None,
) -> tuple[Scores, list[dict[str, Any]]]:
    """Predict and score cases of a run's data.

    Args:
        run: With the data and the plan.
        names: Of the cases.
        output: Folder for the predicted label maps.
        model: Its labels are named as the plan's.
        display: Tells the user.
        prepare: What makes network input of a case, where that is not its scan.

    Returns:
        Scores, and the seconds that each case took.
    """
    from leanseg.datasets import load_case
    from leanseg.volumes import write_mask

    output.mkdir(parents=True, exist_ok=True)
    rows: list[Any] = []
    timings: list[dict[str, Any]] = []
    on_case = display.count("scoring the test cases", len(names))
    for name in names:
        started = time.perf_counter()
        image, label = load_case(run.data.case(name))
        if prepare is None:
            prediction = model.predict_timed(image, run.data.channel_indices)
        else:
            prediction = _of_prepared(model, prepare(run.data.case(name)), image)
        write_mask(output / f"{name}.nii.gz", prediction.labels.array, like=image)
        seconds = time.perf_counter() - started
        assert label is not None  # select_data keeps labelled cases alone
        # Classes come back from the plan's orientation to the scan's own.
        stage, ignored = run.plan.final, run.data.ignored_values
        classes = class_map(label, stage, run.data.label_values, ignored)
        classes = classes.transpose(1, 2, 0)
        truth = reoriented_view(classes, stage.frame.orientation, image.orientation)
        # A label that the case does not annotate cannot be scored there.
        known = {label: model.label_values[label] for label in run.data.annotated[name]}
        found = evaluate_masks(
            prediction.labels.array,
            truth,
            image.affine,
            known,
            ignored_values=[ignored_class(stage.labels)] if ignored else (),
        )
        rows.extend(replace(score, case=name) for score in found)
        timings.append(
            {
                "case": name,
                "seconds": seconds,
                "stages": vars(prediction.seconds),
                "slices": int(image.shape[2]),
            }
        )
        on_case(name)
    labels: LabelValues = {name: tuple(sorted(v)) for name, v in model.label_values.items()}
    settings = asdict(EvaluationSettings())
    if run.data.ignored_values:
        settings["ignored_values"] = list(run.data.ignored_values)
    return Scores(labels, tuple(rows), settings), timings
