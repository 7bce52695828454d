"""Study files: a matrix of trainings as validated data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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

from leanseg.errors import RecipeError
from leanseg.evaluation import METRIC_NAMES
from leanseg.files import first_mistake, read_parsed, shortened
from leanseg.registry import did_you_mean
from leanseg.training.yaml_text import read_yaml


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def _printable(name: str) -> str:
    if not name.isprintable() or not any(character.isalnum() for character in name):
        raise ValueError("a name has letters or digits, and no characters that cannot be seen")
    return name


def _metric(name: str) -> str:
    if name not in METRIC_NAMES:
        hint = did_you_mean([name], METRIC_NAMES) or f"; there are {', '.join(METRIC_NAMES)}"
        raise ValueError(f"there is no such metric{hint}")
    return name


def _no_dataset(name: str, known: Iterable[str]) -> str:
    hint = did_you_mean([name], known) or f"; it has {', '.join(known)}"
    return f"the study has no dataset {name!r}{hint}"


def _different(values: list[Any]) -> list[Any]:
    if len({*values}) < len(values):
        raise ValueError("one is given twice")
    return values


def _entry(key: str) -> BeforeValidator:
    """A section of which only one key is given may be written as that value alone."""

    def full(value: Any) -> Any:
        return {} if value is None else {key: value} if isinstance(value, str) else value

    return BeforeValidator(full)


_Name = Annotated[str, Field(min_length=1, max_length=60), AfterValidator(_printable)]
_Metric = Annotated[str, AfterValidator(_metric)]
_Whole = Annotated[int, Field(ge=0)]
# "key.path" of a recipe to its value, as --set of `leanseg train` takes them.
Settings = dict[str, Any]


class Published(_Section):
    """A published figure, which is printed beside the reproduced one.

    Attributes:
        row: The method; where it is no row of the study, the figure is printed alone.
        metric: Which metric it is.
        value: The mean.
        sd: Its standard deviation.
        label: Of which label; None for the mean over labels.
        dataset: Of which dataset that is scored; None for all of the study's.
        note: A footnote.
        reason: Why it is not reproduced, where it is not.
    """

    row: _Name
    metric: _Metric = "dice"
    value: float
    sd: Annotated[float, Field(ge=0)] | None = None
    label: str | None = None
    dataset: str | None = None
    note: str | None = None
    reason: str | None = None


class PhantomData(_Section):
    """Synthetic scans in a dataset's place, as `leanseg phantom` makes them."""

    cases: Annotated[int, Field(ge=2)] = 10
    size: int = 64
    slices: int | None = 20
    tumour_mm: float | None = None
    seed: _Whole = 0


class DatasetEntry(_Section):
    """A dataset of a study.

    Attributes:
        path: A folder, zip file or listing, relative to the study file.
        phantom: Synthetic scans instead.
        set: What every recipe has for it.
        note: A footnote, such as how many cases the publication had.
    """

    path: str | None = None
    phantom: PhantomData | None = None
    set: Settings = Field(default_factory=dict)
    note: str | None = None


class StudyBudget(_Section):
    """How long each cell trains; without one, as its recipe says."""

    minutes: Annotated[float, Field(gt=0)] | None = None
    cpu_minutes: Annotated[float, Field(gt=0)] | None = None
    steps: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _one(self) -> StudyBudget:
        if len(self.model_dump(exclude_none=True)) > 1:
            raise ValueError("several say how long to train; give one")
        return self


class RecipeEntry(_Section):
    """A row of a study.

    Attributes:
        recipe: A built-in recipe, or a file relative to the study file; None has one planned for
            each dataset and budget.
        set: What is changed in it.
        budget: Of its cells, where it is not the study's.
        note: A footnote, such as what it stands in for.
    """

    recipe: str | None = None
    set: Settings = Field(default_factory=dict)
    budget: StudyBudget | None = None
    note: str | None = None


class Study(_Section):
    """A matrix of trainings: recipes x datasets x folds x seeds x overrides.

    Attributes:
        name: Its name, and that of its folder.
        title: Of its tables.
        about: What it asks, for the report.
        published: Figures to print beside the reproduced ones.
        metrics: What is in its tables; the first is also tested.
        datasets: What is trained and scored on, by name.
        recipes: The rows, by name.
        train_on: Datasets that are trained on; None for all that are not in `evaluate_on`.
        evaluate_on: Datasets of which every case is scored with the models of others.
        set: What every recipe has.
        split: How cases are divided, as in recipes, for all rows alike; None leaves it to these.
        folds: Which folds are trained.
        seeds: Of the training.
        overrides: A further axis: a name to what is changed.
        budget: Of every cell whose row has none of its own.
        threads: Of every cell; results depend on it in their last bits.
        notes: Footnotes of the whole table.
        quick: What `--quick` puts in the place of the keys above.
    """

    name: _Name
    title: str = ""
    about: str = ""
    published: list[Published] = Field(default_factory=list)
    metrics: Annotated[list[_Metric], Field(min_length=1), AfterValidator(_different)] = ["dice"]
    datasets: Annotated[dict[_Name, Annotated[DatasetEntry, _entry("path")]], Field(min_length=1)]
    recipes: Annotated[dict[_Name, Annotated[RecipeEntry, _entry("recipe")]], Field(min_length=1)]
    train_on: list[_Name] | None = None
    evaluate_on: list[_Name] = Field(default_factory=list)
    set: Settings = Field(default_factory=dict)
    split: Settings | None = None
    folds: Annotated[list[_Whole], Field(min_length=1)] = [0]
    seeds: Annotated[list[_Whole], Field(min_length=1)] = [42]
    overrides: dict[_Name, Settings] = Field(default_factory=dict)
    budget: StudyBudget = StudyBudget()
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    notes: list[str] = Field(default_factory=list)
    quick: Settings = Field(default_factory=dict)
    is_quick: Literal[False, True] = False

    @model_validator(mode="after")
    def _known_datasets(self) -> Study:
        named = {*(self.train_on or ()), *self.evaluate_on}
        named |= {each.dataset for each in self.published if each.dataset is not None}
        if unknown := sorted(named - {*self.datasets}):
            raise ValueError(_no_dataset(unknown[0], self.datasets))
        if not self.trained_on:
            raise ValueError("every dataset is in evaluate_on; name in train_on what is trained on")
        return self

    def budget_of(self, recipe: str) -> StudyBudget:
        """What each cell of a row may take."""
        return self.recipes[recipe].budget or self.budget

    @property
    def trained_on(self) -> list[str]:
        """Names of the datasets that cells train on."""
        if self.train_on is not None:
            return self.train_on
        return [name for name in self.datasets if name not in self.evaluate_on]

    def scored_elsewhere(self, trained_on: str) -> list[str]:
        """Names of the datasets that models trained on one are scored on besides."""
        return [name for name in self.evaluate_on if name != trained_on]


class PublishedTimes(_Section):
    """A network's published times and sizes, in the units of `TimesStudy`."""

    row: _Name
    cpu_s: float | None = None
    cpu_sd: float | None = None
    gpu_s: float | None = None
    gpu_sd: float | None = None
    parameters: int | None = None
    megabytes: float | None = None
    note: str | None = None


class TimesStudy(_Section):
    """Networks as they start, of which time and size are measured and nothing is trained.

    Attributes:
        name: Its name, and that of its folder.
        title: Of its table.
        about: What it asks.
        networks: Names in the registry, by row.
        image: Height and width.
        images: Slices of the scan that is timed on the processor.
        batch: Slices of a training step, forward and backward, that is timed on a GPU.
        repetitions: How often each is timed, in turns.
        threads: Of the processor.
        published: What was published.
        notes: Footnotes.
        quick: What `--quick` puts in the place of the keys above.
    """

    name: _Name
    title: str = ""
    about: str = ""
    networks: Annotated[dict[_Name, str], Field(min_length=1)]
    image: Annotated[list[Annotated[int, Field(ge=16)]], Field(min_length=2, max_length=2)]
    images: Annotated[int, Field(ge=1)] = 150
    batch: Annotated[int, Field(ge=1)] = 32
    repetitions: Annotated[int, Field(ge=2)] = 5
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    published: list[PublishedTimes] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)
    quick: Settings = Field(default_factory=dict)
    is_quick: Literal[False, True] = False

    @model_validator(mode="after")
    def _known(self) -> TimesStudy:
        if unknown := [each.row for each in self.published if each.row not in self.networks]:
            raise ValueError(f"'published' has {unknown[0]!r}, which is no row of 'networks'")
        return self


def builtin_studies() -> dict[str, str]:
    """Names of the studies that come with leanseg, and their YAML text."""
    folder = resources.files("leanseg.studies").joinpath("tables")
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".yaml")), key=lambda f: f.name)
    return {file.name.removesuffix(".yaml"): file.read_text(encoding="utf-8") for file in files}


def load_study(
    source: str | Path, *, data: Mapping[str, Path] | None = None, quick: bool = False
) -> Study | TimesStudy:
    """Read a study; its paths become absolute.

    Args:
        source: A YAML file, or the name of a built-in study.
        data: Dataset's name to its place, instead of what the study says.
        quick: Make it as small as its key `quick` says.

    Raises:
        RecipeError: If it is missing, or has a key or value that is not allowed; the message
            names file, key, value and what was expected.
    """
    path, builtin = Path(source), builtin_studies()
    if path.is_file():
        remedy = "give a study in YAML"
        study = read_parsed(
            path, lambda text: parse_study(text, source, quick), remedy, RecipeError
        )
        return _placed(study, path.absolute().parent, data or {})
    if str(source) in builtin:
        return _placed(parse_study(builtin[str(source)], source, quick), None, data or {})
    hint = did_you_mean([str(source)], builtin) or "; see leanseg study --list"
    raise RecipeError(f"{shortened(path)}: is neither a study file nor a built-in study{hint}")


def parse_study(text: str, source: object, quick: bool = False) -> Study | TimesStudy:
    """The study that a YAML text holds, with paths as they stand there.

    It is one of times if it has the key 'networks'.

    Raises:
        RecipeError: If it has a key or value that is not allowed.
    """
    content = read_yaml(text, source)
    if not isinstance(content, dict):
        raise RecipeError(f"{source}: a study is a mapping with keys such as 'name' and 'recipes'")
    if quick:
        if not isinstance(content.get("quick"), dict):
            raise RecipeError(f"{source}: has no key 'quick', so --quick makes nothing smaller")
        content = {**content, **content["quick"], "is_quick": True}
    try:
        kind = TimesStudy if "networks" in content else Study
        return kind.model_validate(content)
    except ValidationError as error:
        raise RecipeError(f"{source}: {first_mistake(error)}; correct it") from error


def _placed(
    study: Study | TimesStudy, beside: Path | None, data: Mapping[str, Path]
) -> Study | TimesStudy:
    """The study with absolute paths, and with data in other places."""
    if isinstance(study, TimesStudy):
        if data:
            raise RecipeError(f"--data: the study {study.name!r} measures times and needs no data")
        return study
    for name in data:
        if name not in study.datasets:
            raise RecipeError(f"--data: {_no_dataset(name, study.datasets)}")
    datasets = {}
    for name, entry in study.datasets.items():
        given = {"phantom": None, "path": str(data[name].absolute())} if name in data else {}
        if not given and entry.path is not None and beside is not None:
            given = {"path": str(beside / entry.path)}
        datasets[name] = placed = entry.model_copy(update=given)
        if placed.phantom is None and (placed.path is None or not Path(placed.path).exists()):
            where = f" ({placed.path} is not there)" if placed.path else ""
            quick = ", or try it with --quick" if study.quick and not study.is_quick else ""
            raise RecipeError(
                f"study {study.name!r}: dataset {name!r} has no scans{where}; say where they are "
                f"with --data {name}=FOLDER (`leanseg datasets` says where to get them){quick}"
            )
    recipes = {}
    for name, row in study.recipes.items():
        file = None if row.recipe is None or beside is None else beside / row.recipe
        is_file = file is not None and file.is_file()
        recipes[name] = row.model_copy(update={"recipe": str(file)}) if is_file else row
    return study.model_copy(update={"datasets": datasets, "recipes": recipes})
