"""The two stages of a cascade, trained together (paper 003, section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from leanseg.errors import RecipeError
from leanseg.losses.base import IGNORED
from leanseg.networks.base import SegmentationNetwork
from leanseg.networks.cascade import Cascade, StageMaps, found_in
from leanseg.plan import Stage
from leanseg.registry import Whole
from leanseg.training import ranks
from leanseg.training.joint import joint
from leanseg.training.tasks.base import Batch, Task, Term
from leanseg.training.tasks.segmentation import compare
from leanseg.volumes.windows import Window, window_around

# Keeps these draws apart from those of augmentations with the same seed.
_KEY = 0x0CA5
# That a crop has its usual margins.
_CHANCE = 0.5


class CascadeTask(Task):
    """A step of both stages: the organ in whole slices, and what is in it in crops around it.

    The phases of the paper are S (`crop` truth, `saliency` false), I (truth) and J (found): its
    text crops by the second stage's output in J, which holds for the rounds of RSTN's prediction
    alone; here as there the first one's counts.

    Terms of the loss are of the "first" stage, of the "second" in its crops, or of "both": the
    classes background, organ and lesion with the probabilities (1 - p1)(1 - p2), p1 (1 - p2) and
    p2 over the whole slice. Where no term is of the second stage, it is not run.

    Crops of a batch have one size, the largest that any needs: the others see more around them.
    A slice with nothing to crop around (no label, and nothing found) takes no part in the second
    stage's losses.

    Args:
        stage: Labels an organ and a lesion inside it, or the organ alone.
        terms: Of the loss.
        crop: Around what: "truth", all that is labelled; or what the first stage "found" (where
            it finds nothing the truth, which is counted).
        saliency: Whether the first stage weighs the second's image.
        random_margin: With even chance a crop's margins are drawn instead, each from 0 to this
            many pixels; 0 for none, None for twice the network's own (RSTN: 40 and 20).
    """

    methods: ClassVar[Sequence[str]] = ("stage_maps",)

    def __init__(
        self,
        stage: Stage,
        terms: Sequence[Term],
        *,
        crop: Literal["truth", "found"] = "found",
        saliency: bool = True,
        random_margin: Whole | None = None,
    ) -> None:
        if any(term.part is None for term in terms):
            msg = "task 'cascade' has two stages; give every loss its 'part': first, second or both"
            raise RecipeError(msg)
        organ, *lesion = stage.labels
        if len(lesion) > 1 or stage.inside != dict.fromkeys(lesion, organ):
            raise RecipeError(
                f"task 'cascade' takes an organ and then one label inside it, or an organ alone, "
                f"not {', '.join(stage.labels)}; give 'data.labels' such as "
                "{organ: [1, 2], lesion: [2]}"
            )
        if not lesion and any(term.part == "both" for term in terms):
            msg = "task 'cascade' labels an organ alone; leave out the losses of 'both' stages"
            raise RecipeError(msg)
        self._stage, self._terms = stage, terms
        self._by_truth, self._saliency = crop == "truth", saliency
        self._random_margin = random_margin
        self._n_looked = self._n_missed = 0

    def require(self, network: SegmentationNetwork) -> None:
        """Refuse a network that has not two stages, or not the outputs which the loss weighs.

        Raises:
            RecipeError: With what it lacks.
        """
        if not isinstance(network, Cascade):
            msg = "task 'cascade' trains the two stages of network 'cascade'; choose that network"
            raise RecipeError(msg)
        n = network.second.network.n_maps
        for term in self._terms:
            if term.outputs is not None and (term.part != "second" or len(term.outputs) != n):
                raise RecipeError(
                    f"a loss of part {term.part!r} has weights for {len(term.outputs)} outputs, "
                    f"but the second stage alone has several: {n}; correct 'outputs'"
                )

    def loss(self, network: nn.Module, batch: Batch) -> torch.Tensor:
        """The loss of a batch, a scalar."""
        found: Any = network
        is_seen: list[bool] = []

        def windows(organ: torch.Tensor) -> list[Window]:
            chosen = self._windows(found, organ, batch)
            is_seen.extend(seen for _, seen in chosen)
            return [window for window, _ in chosen]

        needs_second = any(term.part != "first" for term in self._terms)
        maps: StageMaps = found.stage_maps(
            batch.image, windows if needs_second else None, saliency=self._saliency
        )
        known = batch.annotated
        total = torch.zeros((), device=batch.image.device)
        organ = self._mask(batch.classes, 0)
        for term in self._terms:
            if term.part == "first":
                total = total + self._term(term, maps.organ, organ, known, 0)
            elif term.part == "second":
                total = total + self._second(term, maps, batch, is_seen)
            else:
                total = total + term.weight * self._both(term, maps, batch)
        return total

    def _second(
        self, term: Term, maps: StageMaps, batch: Batch, is_seen: Sequence[bool]
    ) -> torch.Tensor:
        last = len(self._stage.labels) - 1
        mask = self._mask(batch.classes, last)
        crops = torch.stack([own[w] for own, w in zip(mask, maps.windows, strict=True)])
        unseen = ~torch.tensor(is_seen, device=crops.device)
        crops = crops.masked_fill(unseen.view(-1, 1, 1), IGNORED)
        assert maps.answer is not None
        if term.outputs is None:
            return self._term(term, maps.answer, crops, batch.annotated, last)
        total = torch.zeros((), device=crops.device)
        for weight, logits in zip(term.outputs, maps.maps, strict=True):
            if weight:
                total = total + weight * self._term(term, logits, crops, batch.annotated, last)
        return total

    def _both(self, term: Term, maps: StageMaps, batch: Batch) -> torch.Tensor:
        organ, lesion = maps.organ.float(), maps.pasted().float()
        outside = functional.logsigmoid(-lesion)
        logits = torch.cat(
            (
                functional.logsigmoid(-organ) + outside,
                functional.logsigmoid(organ) + outside,
                functional.logsigmoid(lesion),
            ),
            dim=1,
        )
        known = batch.annotated
        if known is not None:
            known = joint(torch.cat((torch.ones_like(known[:, :1]), known), dim=1))
        target = joint(batch.classes)
        value: torch.Tensor = (
            term.loss(joint(logits), target)
            if known is None
            else term.loss(joint(logits), target, known)
        )
        return value

    def _term(
        self,
        term: Term,
        logits: torch.Tensor,
        mask: torch.Tensor,
        annotated: torch.Tensor | None,
        label: int,
    ) -> torch.Tensor:
        """One loss of one output against a mask."""
        known = None if annotated is None else joint(annotated[:, label : label + 1])
        single = self._stage.model_copy(update={"inside": {}})
        return term.weight * compare(term.loss, joint(logits), joint(mask), known, single)

    def _mask(self, classes: torch.Tensor, label: int) -> torch.Tensor:
        """1 in a label and all inside it, -1 where ignored."""
        values = self._stage.label_values[self._stage.labels[label]]
        inside = torch.isin(classes, classes.new_tensor(values)).to(classes.dtype)
        return inside.masked_fill(classes == IGNORED, IGNORED)

    def _windows(
        self, network: Any, organ: torch.Tensor, batch: Batch
    ) -> list[tuple[Window, bool]]:
        """Where the second stage looks in each slice, and whether there is anything to learn."""
        truth = (batch.classes > 0).cpu().numpy()
        found = truth if self._by_truth else found_in(organ)[:, 0]
        masks: list[NDArray[np.bool_]] = []
        for own, true in zip(found, truth, strict=True):
            is_missed = not own.any() and true.any()
            self._n_looked += bool(true.any())
            self._n_missed += bool(is_missed)
            masks.append(true if is_missed else own)
        margins = [self._margins(seed, network.margin) for seed in batch.seeds]
        multiple = network.multiple
        pairs = list(zip(masks, margins, strict=True))
        alone = [window_around(mask, margin, multiple) for mask, margin in pairs]
        sides = [(multiple, multiple)]
        sides += [(i.stop - i.start, j.stop - j.start) for i, j in filter(None, alone)]
        # Processes that train together compare crops of one size.
        everywhere = [side for part in ranks.gathered_objects(sides) for side in part]
        least = max(i for i, _ in everywhere), max(j for _, j in everywhere)
        middle = np.zeros(organ.shape[2:], dtype=bool)
        middle[middle.shape[0] // 2, middle.shape[1] // 2] = True
        chosen: list[tuple[Window, bool]] = []
        for (mask, margin), own_window in zip(pairs, alone, strict=True):
            seen = mask if own_window else middle
            window = window_around(seen, margin if own_window else [(0, 0)] * 2, multiple, least)
            assert window is not None
            chosen.append((window, own_window is not None))
        return chosen

    def _margins(self, seed: int, usual: int) -> list[tuple[int, int]]:
        """Before and behind a crop, along i and j."""
        rng = np.random.Generator(np.random.Philox(key=[seed, _KEY]))
        most = 2 * usual if self._random_margin is None else self._random_margin
        if not most or rng.random() < _CHANCE:
            return [(usual, usual)] * 2
        up, down, left, right = (int(n) for n in rng.integers(0, most + 1, 4))
        return [(up, down), (left, right)]

    def told(self) -> str:
        """How often the first stage found nothing where there was something."""
        of_all = ranks.gathered_objects((self._n_looked, self._n_missed))
        looked, missed = (sum(counts) for counts in zip(*of_all, strict=True))
        self._n_looked = self._n_missed = 0
        if not missed:
            return ""
        return (
            f"the first stage found nothing in {missed} of {looked} labelled slices, which were "
            "cropped around their labels"
        )
