"""A model in memory: networks in stages, and what they need to see a scan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from leanseg.modelfile.manifest import ExportRecord, Manifest, MemberRecord, NetworkSpec, Provenance
from leanseg.plan import Plan


@dataclass(frozen=True)
class Exported:
    """What engines other than PyTorch run.

    Attributes:
        graph: A serialised ONNX model without its weights; input "image" (batch, channel,
            *spatial) with the plan's shape, output "logits" (batch, output, *spatial).
        record: How it was made and checked.
        sampled: For a network with sparse deformable layers, the graph from "image" to what they
            sample, "sampled.0" and so on; `graph` then has the further inputs "samples.0" and so
            on, the layers' results (`leanseg.modelfile.manifest.SamplingLayer`).
    """

    graph: bytes
    record: ExportRecord
    sampled: bytes | None = None


@dataclass(frozen=True)
class Member:
    """One network of a stage.

    Attributes:
        network: What it is.
        weights: Arrays by parameter name, BatchNorm statistics included.
        exported: Its graph; without it PyTorch alone can run the network.
        path: The model file that holds it, for messages.
    """

    network: NetworkSpec
    weights: Mapping[str, NDArray[Any]]
    exported: Exported | None = None
    path: Path | None = None

    @property
    def record(self) -> MemberRecord:
        """What the manifest says of it."""
        export = None if self.exported is None else self.exported.record
        return MemberRecord(network=self.network, export=export)


@dataclass(frozen=True)
class ModelFile:
    """A model: the networks of every stage, in the order in which stages run.

    Attributes:
        plan: How the stages see a scan, and what their outputs mean.
        stages: Name to members; the probabilities of several members are averaged. The last
            stage answers.
        provenance: Where the model comes from.
        path: The file that it was read from or belongs to.
        weights_sha256: Of the weights as they lie in the file; empty before it is written.
    """

    plan: Plan
    stages: Mapping[str, tuple[Member, ...]]
    provenance: Provenance = field(default_factory=Provenance)
    path: Path | None = None
    weights_sha256: str = ""

    @classmethod
    def of(cls, plan: Plan, *members: Member, **attributes: Any) -> ModelFile:
        """A model of one stage with a network."""
        return cls(plan, {plan.final.name: members}, **attributes)

    @property
    def members(self) -> tuple[Member, ...]:
        """The networks of the stage that answers."""
        return self.stages[self.plan.final.name]

    @property
    def networks(self) -> tuple[Member, ...]:
        """The networks of all stages."""
        return tuple(member for members in self.stages.values() for member in members)

    @property
    def title(self) -> str:
        """What answers, for the user: "monet", "unet-16, then monet", "combiner of 10 networks"."""
        crop = self.plan.final.patch.crop
        if crop is not None:
            fine = self.members[0].network.options["network"]["name"]
            return f"{self.stages[crop.stage][0].network.name}, then {fine}"
        n_inputs = len(self.plan.final.inputs)
        return self.members[0].network.name + (f" of {n_inputs} networks" if n_inputs else "")

    @property
    def is_exported(self) -> bool:
        """Whether it runs without PyTorch."""
        return all(member.exported is not None for member in self.networks)

    @property
    def manifest(self) -> Manifest:
        """What the file says about itself.

        Raises:
            ValidationError: If the networks do not fit the plan.
        """
        return Manifest(
            plan=self.plan,
            stages={
                name: tuple(member.record for member in members)
                for name, members in self.stages.items()
            },
            provenance=self.provenance,
            weights_sha256=self.weights_sha256,
        )
