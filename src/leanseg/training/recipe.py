"""Recipes: what to train, on what, and how, as validated data."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from leanseg.datasets import LAYOUTS
from leanseg.datasets.load import LARGEST_LABEL
from leanseg.errors import RecipeError
from leanseg.files import read_parsed, shortened
from leanseg.plan import StageSettings
from leanseg.registry import did_you_mean
from leanseg.training.yaml_text import read_yaml, write_yaml


class _Section(BaseModel):
    """Strict: true is no number, "3" neither, nan and inf are no numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, int | str) else value


def _as_text(value: Any) -> Any:
    return str(value) if type(value) is int else value


def _once(values: Any) -> Any:
    if values != "all" and len({*values}) < len(values):
        raise ValueError("one is given twice")
    return values


def _printable(name: str) -> str:
    if not name.isprintable():
        raise ValueError("a name has no line breaks, nor other characters that cannot be seen")
    return name


_Name = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_printable)]
_Seed = Annotated[int, Field(ge=0, lt=2**63)]
# A label is a name, or a value from 1 on.
LabelValues = Annotated[
    list[Annotated[int, Field(ge=1, le=LARGEST_LABEL)] | _Name],
    BeforeValidator(_as_list),
    Field(min_length=1),
]


def _layout(name: str) -> str:
    if name not in LAYOUTS:
        hint = did_you_mean([name], LAYOUTS) or f", only {', '.join(LAYOUTS)}"
        raise ValueError(f"there is no such layout{hint}")
    return name


class DataSection(_Section):
    """Which part of a dataset is used.

    Attributes:
        layout: Name of the layout on disk; None recognises it.
        channels: Channel names in the network's order; None takes all of the dataset's.
        labels: Foreground class to the dataset's labels merged into it, by name in any spelling
            or by value, in the order of the network's classes; None takes the dataset's own. A
            case annotates a class when it annotates all of these labels; a name that ends in
            "?" is merged where it is annotated and not missed where it is not (`liver: [liver,
            "liver lesion?"]`, where some cases count lesions as liver).
        geometry: Which counts where sform and qform of a NIfTI file disagree: "sform", "qform",
            or "auto" for the rule in docs/data.md.
    """

    layout: Annotated[_Name, AfterValidator(_layout)] | None = None
    channels: Annotated[list[_Name], Field(min_length=1), AfterValidator(_once)] | None = None
    labels: Annotated[dict[_Name, LabelValues], Field(min_length=1)] | None = None
    geometry: Literal["auto", "sform", "qform"] = "auto"


class Named(_Section):
    """Something with a name in a registry, or an import path "module:Name", and its options.

    Attributes:
        name: In the registry, or an import path.
        options: Its own, by name.
    """

    name: _Name
    options: dict[str, Any] = Field(default_factory=dict)


class SplitSection(_Section):
    """How cases are divided into train, monitor and test; all but "random" make several folds.

    Cases of one patient are never in two parts, where the layout knows patients.

    Attributes:
        kind: "random"; "k-fold"; "sequential" (blocks of cases in order of name);
            "leave-one-out"; "contiguous" (blocks of cases sorted by number of slices, then slice
            thickness, as paper 002); "stratified" (small and large lesions in every fold);
            "stated" (the folds that the dataset comes with); "file".
        train_fraction: For "random": the part that does not test; 1 where nothing is to test.
        monitor_fraction: Of the cases that do not test, the part that chooses the epoch: at least
            one case; 0 for none, where the last epoch is kept.
        n_folds: For "k-fold", "sequential", "contiguous" and "stratified".
        by: For "stratified": the class whose volume counts; None for the last one.
        file: For "file": a JSON list of train, monitor and test cases; where it lists no monitor
            cases, as nnU-Net's does not, they are drawn from the train cases.
        seed: Of everything that is drawn.
    """

    kind: Literal[
        "random",
        "k-fold",
        "sequential",
        "leave-one-out",
        "contiguous",
        "stratified",
        "stated",
        "file",
    ] = "random"
    train_fraction: float = Field(default=0.7, gt=0, le=1)
    monitor_fraction: float = Field(default=0.1, ge=0, lt=1)
    n_folds: int = Field(default=5, ge=2)
    by: _Name | None = None
    file: str | None = None
    seed: _Seed = 42


class LossTerm(Named):
    """One term of a phase's loss.

    Attributes:
        weight: Of the term in the sum.
        outputs: Weights of the network's maps, coarse to fine, for networks that have several
            (deep supervision); None for the last map alone.
        part: Of which part of the answer it is, where the task has several: of a cascade the
            "first" stage, the "second", or "both" as classes that exclude one another.
    """

    weight: float = Field(default=1.0, gt=0, le=1e9)
    outputs: Annotated[list[Annotated[float, Field(ge=0, le=1e9)]], Field(min_length=1)] | None = (
        None
    )
    part: Literal["first", "second", "both"] | None = None


class ScheduleSection(Named):
    """How the learning rate goes; torch's own, by the names in `leanseg.training.schedule`.

    Attributes:
        warmup: Share of the phase in which the rate rises from nothing.
        by: What drives it: "epochs" (a step at each epoch's end, as the papers have it), or
            "share" of the phase that is behind, whether it ends by epochs, steps or minutes;
            None for epochs where it is a plateau or exponential, else the share.
    """

    name: Literal["constant", "plateau", "exponential", "polynomial", "cosine", "one-cycle"] = (
        "constant"
    )
    warmup: float = Field(default=0.0, ge=0, lt=1)
    by: Literal["epochs", "share"] | None = None

    @property
    def is_by_epochs(self) -> bool:
        """Whether it goes a step at each epoch's end."""
        if self.by is None:
            return self.name in ("plateau", "exponential")
        return self.by == "epochs"


# With fewer monitor cases how the network decides is not chosen.
LEAST_CASES = 3
# From which step on how many steps were left to go, by what the clock had said.
Pace = list[Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=2, max_length=2)]]


class Phase(_Section):
    """One part of a training: what is trained, on what, by what loss, how and how long.

    The first of `epochs`, `steps`, `minutes` and `cpu_minutes` that is reached ends it. The next
    phase starts from the weights that it selected. Defaults follow papers 000 and 001.

    Attributes:
        name: Unique among the phases.
        task: What a step means.
        trains: Parts of the network that learn: names of its modules or parameters, and all below
            them; None for everything.
        copies: Parts of the network that begin the phase with another part's weights, where names
            and shapes fit: {second.network: first}.
        sampler: Where training looks.
        augmentation: In their order.
        loss: Terms that are added up.
        optimiser: One of torch's, by its class name.
        schedule: Of the learning rate.
        batch_size: Samples of a batch, of all devices together.
        accumulate: Batches whose gradients make one step.
        clip_norm: Largest norm of the gradient; None for no clipping.
        average: Decay of a running average of the weights, which is then what is monitored and
            kept, with batch statistics of its own; None for none.
        epochs: At most so many.
        steps_per_epoch: None for one pass over what the sampler has.
        steps: At most so many.
        minutes: By the clock, with monitoring.
        cpu_minutes: Processor minutes of all threads, which other programs on the machine do not
            shorten: the fair budget for comparing networks on a CPU.
        pace: What the clock decided in the run that a kept recipe is of: from which step on how
            many steps were left. With it the clock is not asked again.
        monitor_every: Epochs from one look at the monitor cases to the next.
        patience: Looks without a better one before the phase ends; None to go on.
        selection: Which weights are kept: the best by the monitor cases, or the last.
        judge: What is better there: a higher Dice, or a lower loss, as in algorithm 1 of paper 002;
            the monitored loss, which a plateau waits for too, is then the phase's own of whole
            cases, else their soft Dice loss.
    """

    name: _Name = "main"
    task: Named = Named(name="segmentation")
    trains: Annotated[list[_Name], Field(min_length=1)] | None = None
    copies: dict[_Name, _Name] = Field(default_factory=dict)
    sampler: Named = Named(name="slices")
    augmentation: list[Named] = Field(default_factory=lambda: [Named(name="affine")])
    loss: Annotated[list[LossTerm], Field(min_length=1)] = Field(
        default_factory=lambda: [LossTerm(name="dice")]
    )
    optimiser: Named = Named(
        name="NAdam", options={"lr": 5e-4, "eps": 1e-7, "momentum_decay": 4e-3}
    )
    schedule: ScheduleSection = ScheduleSection(name="plateau", options={"patience": 1})
    batch_size: int = Field(default=16, ge=1, le=65536)
    accumulate: int = Field(default=1, ge=1, le=65536)
    clip_norm: float | None = Field(default=None, gt=0)
    average: float | None = Field(default=None, gt=0, lt=1)
    epochs: int | None = Field(default=100, ge=1, le=1_000_000)
    steps_per_epoch: int | None = Field(default=None, ge=1, le=1_000_000)
    steps: int | None = Field(default=None, ge=1, le=1_000_000_000)
    minutes: float | None = Field(default=None, gt=0)
    cpu_minutes: float | None = Field(default=None, gt=0)
    pace: Pace | None = None
    monitor_every: int = Field(default=1, ge=1)
    patience: int | None = Field(default=10, ge=1)
    selection: Literal["best", "last"] = "best"
    judge: Literal["dice", "loss"] = "dice"

    @model_validator(mode="after")
    def _ends(self) -> Phase:
        if (self.epochs, self.steps, self.minutes, self.cpu_minutes) == (None,) * 4:
            raise ValueError("it never ends: give it epochs, steps, minutes or cpu_minutes")
        return self

    @property
    def needs_monitor(self) -> bool:
        """Whether something in it is decided by the monitor cases."""
        return self.selection == "best" or self.schedule.name == "plateau"


class TrainingSection(_Section):
    """What holds for all phases.

    Attributes:
        seed: Of the starting weights and of everything that is drawn.
        folds: Which folds of the split to train.
        precision: "32", "bf16-mixed", or "auto": decided by a short measurement.
        checkpoint_interval_s: Seconds between checkpoints within an epoch.
        workers: Processes that load samples; 0 loads in the training process.
        threads: Threads of PyTorch, in each process; None leaves its choice.
        device: What trains; "auto" takes a GPU where there is one.
        devices: How many of this machine, each with a process of its own and its share of every
            batch. What torchrun starts is as many as it started.
        choose_decision: At the end, choose on the monitor cases which labels keep their largest
            component alone, and the threshold; where there are at least three of them.
    """

    seed: _Seed = 42
    folds: Annotated[
        Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] | Literal["all"],
        AfterValidator(_once),
    ] = [0]
    precision: Annotated[Literal["auto", "32", "bf16-mixed"], BeforeValidator(_as_text)] = "auto"
    checkpoint_interval_s: float = Field(default=60.0, ge=0)
    workers: int = Field(default=0, ge=0, le=256)
    threads: int | None = Field(default=None, ge=1, le=1024)
    device: Literal["auto", "cpu", "gpu", "cuda", "mps"] = "auto"
    devices: int = Field(default=1, ge=1, le=1024)
    choose_decision: bool = False


class PackagingSection(_Section):
    """What the model file holds besides weights, plan and provenance.

    Attributes:
        export: Whether the network is exported, so that it runs without PyTorch.
    """

    export: bool = True


def _extended_phases(phases: Any) -> Any:
    """Each phase that `extends` an earlier one, with all that this one says besides."""
    if not isinstance(phases, list):
        return phases
    found: list[Any] = []
    for phase in phases:
        if not isinstance(phase, dict) or "extends" not in phase:
            found.append(phase)
            continue
        named = {each.get("name"): each for each in found if isinstance(each, dict)}
        own = {key: value for key, value in phase.items() if key != "extends"}
        if not isinstance(phase["extends"], str) or phase["extends"] not in named:
            names = ", ".join(map(str, named)) or "none"
            raise ValueError(
                f"a phase extends {shortened(phase['extends'])}, which is not the name of an "
                f"earlier phase ({names})"
            )
        found.append({**named[phase["extends"]], **own})
    return found


def _different(phases: list[Phase]) -> list[Phase]:
    _once([phase.name for phase in phases])
    return phases


def _trainable(plan: StageSettings) -> StageSettings:
    frame = plan.frame
    if plan.averages == "logits" or frame.resampling == "spline" or frame.orientation.islower():
        raise ValueError(
            "averages: logits, resampling: spline and a scan's own axes (ijk) are for imported "
            "models alone; leave them out"
        )
    return plan


class Recipe(_Section):
    """One experiment, complete.

    Attributes:
        name: Of the recipe, and of the run's folder where none is given.
        description: One sentence for `leanseg recipes`.
        init: A model file that training starts from, where names and shapes of its weights fit.
        phases: In their order. One may say `extends` with the name of an earlier one, whose values
            it has but for its own.

    Example:
        >>> recipe = leanseg.Recipe(name="mine", network={"name": "unet-16"})
        >>> recipe.with_overrides(["phases.main.epochs=20"]).phases[0].epochs
        20
    """

    name: _Name
    description: str = ""
    init: _Name | None = None
    data: DataSection = DataSection()
    network: Named = Named(name="monet")
    plan: Annotated[StageSettings, AfterValidator(_trainable)] = StageSettings()
    split: SplitSection = SplitSection()
    phases: Annotated[
        list[Phase],
        Field(min_length=1),
        BeforeValidator(_extended_phases),
        AfterValidator(_different),
    ] = Field(default_factory=lambda: [Phase()])
    training: TrainingSection = TrainingSection()
    packaging: PackagingSection = PackagingSection()

    def within(
        self,
        minutes: float | None = None,
        cpu_minutes: float | None = None,
        steps: int | None = None,
    ) -> Recipe:
        """The recipe with a budget: divided among its phases as theirs are, else by their epochs.

        Args:
            minutes: By the clock, of each fold; None leaves it as it is.
            cpu_minutes: Of the processor.
            steps: Of training, of each phase at least one.

        Raises:
            RecipeError: If a budget is not above zero.
        """
        overrides = []
        for key, total in (("minutes", minutes), ("cpu_minutes", cpu_minutes), ("steps", steps)):
            own = [getattr(phase, key) or 0.0 for phase in self.phases]
            epochs = [phase.epochs or 0.0 for phase in self.phases]
            shares = next((each for each in (own, epochs) if all(each)), [1.0] * len(own))
            for number, share in enumerate(shares if total is not None else ()):
                part = (total or 0.0) * share / sum(shares)
                part = max(round(part), 1) if key == "steps" else part
                overrides.append(f"phases.{number}.{key}={part!r}")
        return self.with_overrides(overrides)

    def with_overrides(self, overrides: Sequence[str]) -> Recipe:
        """Another recipe, with "key.path=value" applied.

        Raises:
            RecipeError: If a key or value is not allowed.
        """
        return validate_recipe(self.model_dump(mode="json"), f"recipe {self.name!r}", overrides)

    def to_yaml(self) -> str:
        """The recipe with every default written out."""
        return write_yaml(self.model_dump(mode="json"))


def builtin_recipes() -> dict[str, str]:
    """Names of the recipes that come with leanseg, and their YAML text."""
    folder = resources.files("leanseg.recipes")
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".yaml")), key=lambda f: f.name)
    return {file.name.removesuffix(".yaml"): file.read_text(encoding="utf-8") for file in files}


def load_recipe(source: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply overrides.

    Args:
        source: A YAML file, or the name of a built-in recipe.
        overrides: "key.path=value" with the value in YAML, such as "phases.0.epochs=20".

    Returns:
        The validated recipe.

    Raises:
        RecipeError: If the file is missing, is not YAML, or has a key or value that is not
            allowed; the message names file, key, value and what was expected.
    """
    return validate_recipe(_content(source), str(source), overrides)


def read_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a file.

    Raises:
        RecipeError: As `load_recipe`.
    """
    return validate_recipe(_read(path), str(path), overrides)


def _read(path: Path) -> Any:
    remedy = "give a recipe in YAML"
    return read_parsed(path, lambda text: read_yaml(text, path), remedy, RecipeError)


def _content(source: str | Path, extending: Sequence[str] = ()) -> Any:
    """What a recipe says, with all that it says by extending another."""
    path = Path(source)
    if path.is_file():
        return _extended(_read(path), str(path), extending)
    builtin = builtin_recipes()
    if str(source) in builtin:
        return _extended(read_yaml(builtin[str(source)], source), str(source), extending)
    hint = did_you_mean([str(source)], builtin) or f"; built-in ones: {', '.join(builtin)}"
    raise RecipeError(f"{shortened(path)}: is neither a recipe file nor a built-in recipe{hint}")


def _extended(content: Any, source: str, extending: Sequence[str]) -> Any:
    """Another recipe with what this one changes, where it `extends` one."""
    if not isinstance(content, dict) or "extends" not in content:
        return content
    own = {"name", "description", "extends", "set"}
    changes = content.get("set") or {}
    for key in content:
        if key not in own:
            raise RecipeError(
                f"{source}: key {shortened(key)} is not allowed beside 'extends'; change it under "
                f"'set', such as set: {{phases.main.epochs: 20}}"
            )
    if not isinstance(content["extends"], str) or not isinstance(changes, dict):
        raise RecipeError(
            f"{source}: 'extends' is the name of a recipe and 'set' a mapping of keys to values, "
            "such as {phases.main.epochs: 20}; correct them"
        )
    if source in extending:
        raise RecipeError(f"{source}: extends itself ({' -> '.join((*extending, source))})")
    # A file's neighbours are found from wherever it is read.
    beside = Path(source).parent / content["extends"]
    base = beside if beside.is_file() else content["extends"]
    found = validate_recipe(_content(base, (*extending, source)), str(base)).model_dump(mode="json")
    found |= {key: content[key] for key in ("name", "description") if key in content}
    for key, value in changes.items():
        _put(found, str(key), value, f"{source}: set {shortened(key)}")
    return found


def validate_recipe(content: Any, source: str, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe from parsed data, to which overrides are applied.

    Raises:
        RecipeError: As `load_recipe`.
    """
    if not isinstance(content, dict):
        raise RecipeError(f"{source}: a recipe is a mapping with keys such as 'name' and 'network'")
    # A section may be written without anything in it.
    content = {key: value for key, value in content.items() if value is not None}
    try:
        recipe = Recipe.model_validate(content)
        if overrides:
            # What the recipe leaves to defaults can be overridden as well.
            content = recipe.model_dump(mode="json")
            for override in overrides:
                _override(content, override)
            recipe = Recipe.model_validate(content)
    except ValidationError as error:
        raise RecipeError(f"{source}: {_first_mistake(error, content)}") from error
    return recipe


def _first_mistake(error: ValidationError, content: Any) -> str:
    """The first problem of a validation: key, value, what to do."""
    first = error.errors()[0]
    missing = first["type"] == "missing"
    path: list[Any] = []
    for part in first["loc"][:-1] if missing else first["loc"]:
        # What is not there is which kind of a union was tried, no key.
        with suppress(LookupError, TypeError):
            content = content[part]
            path.append(part)
    if missing:
        path.append(first["loc"][-1])
    key = shortened(".".join(map(str, path)))
    if missing:
        return f"key {key} is missing; add it"
    if first["type"] == "extra_forbidden":
        known = _known_keys(path[:-1])
        allowed = f"; allowed here: {', '.join(known)}" if known else "; take it out"
        hint = did_you_mean([path[-1]], known) or allowed
        return f"key {key} is not known{hint}"
    message = shortened(first["msg"].removeprefix("Value error, "), 300)[1:-1]
    return f"key {key} has value {shortened(first['input'])}, but: {message}; correct it"


def _known_keys(path: Sequence[Any]) -> list[str]:
    """The keys that the default recipe may have in a place."""
    node: Any = Recipe(name="any")
    with suppress(LookupError, AttributeError):
        for part in path:
            node = node[0] if isinstance(part, int) else getattr(node, part)
    return sorted(type(node).model_fields) if isinstance(node, BaseModel) else []


def _override(content: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    shown = f"--set {shortened(override)}"
    if not equals or not all(key.split(".")):
        msg = f"{shown}: write it as key=value, such as phases.0.epochs=20"
        raise RecipeError(msg)
    _put(content, key, read_yaml(text, shown), shown)


def _put(content: dict[str, Any], key: str, value: Any, shown: str) -> None:
    """Set a key of a recipe by its path."""
    *parents, last = key.split(".")
    node: Any = content
    for part in parents:
        node = _below(node, part, shown)
    if not isinstance(node, dict):
        raise RecipeError(f"{shown}: {parents[-1]!r} is a list; name one of its entries")
    node[last] = value


def _below(node: Any, part: str, shown: str) -> Any:
    """A section or a list of a recipe, or an entry of a list by its number or its name."""
    if isinstance(node, list):
        named = {entry.get("name"): entry for entry in node if isinstance(entry, dict)}
        if part in named:
            return named[part]
        if part.isdecimal() and int(part) < len(node):
            return node[int(part)]
        names = ", ".join(map(str, named))
        raise RecipeError(f"{shown}: there is no entry {part!r}; there are {len(node)}: {names}")
    if isinstance(node, dict):
        # What is not given becomes a section where a key of it is.
        node[part] = {} if node.get(part) is None else node[part]
        if isinstance(node[part], dict | list):
            return node[part]
    raise RecipeError(f"{shown}: {part!r} is not a section of the recipe")
