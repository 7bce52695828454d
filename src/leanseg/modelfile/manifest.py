"""What a model file says about itself."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from leanseg.plan import Plan


class _Record(BaseModel):
    """Strict, immutable data."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class NetworkSpec(_Record):
    """A network of the registry: enough to build it again, and to read its outputs.

    Attributes:
        name: In the registry, or an import path.
        in_channels: Of its input.
        out_channels: Of its output.
        options: Of its constructor.
        activation: What makes probabilities of several outputs; of one it is always a sigmoid. With
            "none" the outputs stay logits.
    """

    name: str
    in_channels: int = Field(ge=1)
    out_channels: int = Field(ge=1)
    options: dict[str, Any] = Field(default_factory=dict)
    activation: Literal["softmax", "sigmoid", "none"] = "softmax"

    @model_serializer(mode="wrap")
    def _without_default(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without the activation where it is a softmax, as files were before there was another."""
        data: dict[str, Any] = handler(self)
        if self.activation == "softmax":
            data.pop("activation", None)
        return data

    @property
    def is_sigmoid(self) -> bool:
        """Whether each output has a probability of its own."""
        return self.activation == "sigmoid" or (
            self.out_channels == 1 and self.activation != "none"
        )


class RobustnessRecord(_Record):
    """What controlled changes of scans did to a model's Dice (`leanseg robustness --write`).

    Attributes:
        data_name: Name of the dataset.
        data_fingerprint: SHA-256 over the names and contents of its labelled cases' files.
        n_cases: Their number.
        seed: Of the random changes.
        dice: Mean Dice of the unchanged scans, by label.
        differences: By factor, label and level, the mean difference of Dice to the unchanged scan,
            paired by case; None where no case has both.
    """

    data_name: str
    data_fingerprint: str
    n_cases: int = Field(ge=1)
    seed: int
    dice: dict[str, float | None]
    differences: dict[str, dict[str, dict[str, float | None]]]


class UsualRange(_Record):
    """What values of a fact are usual (`leanseg.inference.facts`), as they are compared.

    Attributes:
        low: The lowest of known cases.
        high: The highest.
        spread: What a distance from these is a multiple of.
    """

    low: float
    high: float
    spread: float = Field(gt=0)


class LabelGate(_Record):
    """What `leanseg review` holds a result's label against.

    Attributes:
        usual: The label's facts in known cases.
        may_be_empty: Whether known cases have none of it.
        review_at: The distance from what is usual above which somebody should look.
        reject_at: The distance above which the scan or the result is not of that kind.
        acceptable: The Dice below which a result is bad.
        pass_at: The expected Dice from which a result passes.
        line: Expected Dice as intercept, slope of confidence, slope of distance.
        error: What the error of the expected Dice, in terms of its scale
            (`leanseg.evaluation.conformal`), does not exceed with a probability of `coverage`.
        coverage: Of the interval: 0.9, or what so few cases warrant.
        n_cases: Cases whose errors these are.
    """

    usual: dict[str, UsualRange]
    may_be_empty: bool
    review_at: float
    reject_at: float
    acceptable: float
    pass_at: float
    line: tuple[float, float, float]
    error: float = Field(ge=0)
    coverage: float = Field(gt=0, lt=1)
    n_cases: int = Field(ge=1)


class ReliabilityBins(_Record):
    """Voxels of calibration cases in bins of a label's probability, each of equal width.

    Attributes:
        n: Voxels of each bin.
        probability: Their sum of probabilities.
        positive: How many have the label.
    """

    n: tuple[int, ...]
    probability: tuple[float, ...]
    positive: tuple[int, ...]


class LabelReliability(_Record):
    """Whether a label's probabilities mean what they say.

    Attributes:
        before: As the network gives them.
        after: Under a temperature that was fitted to other cases.
    """

    before: ReliabilityBins
    after: ReliabilityBins


class ReviewRecord(_Record):
    """Thresholds of `leanseg review`, by `leanseg calibrate`.

    Attributes:
        data_name: Name of the dataset.
        data_fingerprint: SHA-256 over the names and contents of its labelled cases' files.
        seed: Of the changes of scans and of which cases the line is fitted to.
        n_known: Labelled cases that say what is usual.
        scan: Facts of their scans.
        labels: By name.
        reliability: By label; empty in files of before it was kept.
    """

    data_name: str
    data_fingerprint: str
    seed: int
    n_known: int = Field(ge=1)
    scan: dict[str, UsualRange]
    labels: dict[str, LabelGate]
    reliability: dict[str, LabelReliability] = Field(default_factory=dict)


class Provenance(_Record):
    """Where a model comes from.

    Attributes:
        data_name: Name of the training dataset.
        data_fingerprint: SHA-256 over the names and contents of its files.
        training_cases: Names of the cases that it was trained on.
        monitor_cases: Names of the cases that chose the epoch, and how the model decides where the
            recipe asks for that. What a file of before splits had three parts calls its validation
            cases: they chose the epoch, and were scored, too.
        test_cases: Names of the cases that were scored and took no part in training.
        scores: Mean whole-case Dice of the test cases by label (in files without test cases that
            of the monitor cases), or by any name.
        versions: Versions of leanseg, PyTorch, numpy, Python.
        recipe: The resolved recipe.
        training: Seconds, epochs, precision, seed and the like.
        robustness: What changes of scans did to its Dice, where somebody has measured it.
        review: Thresholds that results are held against, where it has been calibrated.
    """

    data_name: str = ""
    data_fingerprint: str = ""
    training_cases: tuple[str, ...] = ()
    monitor_cases: tuple[str, ...] = Field(
        default=(), validation_alias=AliasChoices("monitor_cases", "validation_cases")
    )
    test_cases: tuple[str, ...] = ()
    scores: dict[str, float | None] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    recipe: dict[str, Any] = Field(default_factory=dict)
    training: dict[str, Any] = Field(default_factory=dict)
    robustness: RobustnessRecord | None = None
    review: ReviewRecord | None = None

    @model_serializer(mode="wrap")
    def _without_none(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without what nobody has measured, as files were before it could be."""
        data: dict[str, Any] = handler(self)
        for name in ("robustness", "review"):
            if getattr(self, name) is None:
                data.pop(name, None)
        return data


# More would fill the memory before the graphs are asked.
Positions = Annotated[int, Field(ge=1, le=4096)]


class SamplingLayer(_Record):
    """A sparse deformable layer that is computed between two exported graphs.

    The first graph's output "sampled.N" is what layer N reads, the second one's input "samples.N"
    what it makes of it, on a regular grid from corner to corner
    (`leanseg.kernels.sparse_convolution`).

    Attributes:
        offsets: Name of the weights that are its offsets, (K, 1 or 2, 3).
        weight: Name of the weights of its 1 x 1 x 1 convolution, (O, C * K / groups).
        groups: Of the convolution.
        grid: Positions along depth, rows and columns.
    """

    offsets: str
    weight: str
    groups: int = Field(ge=1)
    grid: tuple[Positions, Positions, Positions]


class ExportRecord(_Record):
    """How the exported network in a model file was made and checked.

    Attributes:
        opset: Version of the ONNX operators.
        checked_with: The engine that ran the check, with its version.
        equal_labels: Share of voxels whose label equals PyTorch's, on synthetic input.
        sampling: Layers that lie between the two graphs of a network that samples; for others none.
    """

    opset: int = Field(ge=1)
    checked_with: str = ""
    equal_labels: float = Field(default=0.0, ge=0, le=1)
    sampling: tuple[SamplingLayer, ...] = ()


class MemberRecord(_Record):
    """One network of a stage; its weights and graphs are entries of the file."""

    network: NetworkSpec
    export: ExportRecord | None = None


# A stage's networks have one input and output; their probabilities are averaged.
StageName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]
StageRecords = Annotated[tuple[MemberRecord, ...], Field(min_length=1)]


class Manifest(_Record):
    """The manifest of a model file.

    Attributes:
        plan: How the stages see a scan.
        stages: Networks by stage, in the order in which they run; the last one answers.
        provenance: Where the model comes from.
        weights_sha256: Of the weights of all networks, one after another.
    """

    format: Literal["leanseg-model"] = "leanseg-model"
    version: Literal[1] = 1
    plan: Plan
    stages: dict[StageName, StageRecords]
    provenance: Provenance = Provenance()
    weights_sha256: str = ""

    @model_validator(mode="after")
    def _networks_fit_plan(self) -> Manifest:
        planned = [stage.name for stage in self.plan.networks]
        found = list(self.stages)
        if found != planned:
            raise ValueError(f"the networks are of the stages {found}, but the plan has {planned}")
        for stage in self.plan.networks:
            wanted = self.plan.input_shape(stage)[0], self.plan.network_outputs(stage)
            for member in self.stages[stage.name]:
                built = member.network.in_channels, member.network.out_channels
                if built != wanted:
                    raise ValueError(
                        f"the network has {built[0]} input and {built[1]} output channel(s), "
                        f"but the plan asks for {wanted[0]} and {wanted[1]}"
                    )
                if member.network.activation != stage.activation:
                    raise ValueError(
                        f"the network's activation is {member.network.activation}, but the "
                        f"plan's labels ask for {stage.activation}"
                    )
        return self
