"""Which prediction belongs to which reference."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from leanseg.errors import DatasetError
from leanseg.volumes import VOLUME_SUFFIXES, is_volume_path, volume_stem


@dataclass(frozen=True)
class CasePair:
    """The two label maps of a case.

    Attributes:
        name: Names the case in scores.
        prediction: The predicted label map; None where there is none, which is scored as empty.
        reference: The reference label map.
    """

    name: str
    prediction: Path | None
    reference: Path


@dataclass(frozen=True)
class MatchedCases:
    """Pairs by file name, and predictions that have no reference."""

    pairs: tuple[CasePair, ...]
    unmatched_predictions: tuple[str, ...] = ()


def match_cases(
    predictions: str | Path, references: str | Path, *, allow_missing: bool = False
) -> MatchedCases:
    """Match label maps by file name without its ending.

    Args:
        predictions: A label map, or a folder of them. A single one is scored alone.
        references: A label map, or a folder of them. Two single files match whatever their names.
        allow_missing: Keep references without a prediction, to be scored as empty predictions.

    Raises:
        DatasetError: If a path is missing, a folder holds no volumes, two files of a folder
            have one name, no names are common, or a reference has no prediction.
    """
    predictions, references = Path(predictions), Path(references)
    predicted, referenced = _list_volumes(predictions), _list_volumes(references)
    if predictions.is_file() and references.is_file():
        name = next(iter(referenced))
        return MatchedCases((CasePair(name, predictions, references),))
    common = [name for name in referenced if name in predicted]
    if not common:
        msg = (
            f"no label map in {predictions} has the name of one in {references} "
            f"(such as {next(iter(predicted))} and {next(iter(referenced))}); rename them alike"
        )
        raise DatasetError(msg)
    if predictions.is_file():
        # One prediction was asked about, not the whole folder of references.
        referenced = {name: referenced[name] for name in common}
    missing = [name for name in referenced if name not in predicted]
    if missing and not allow_missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        msg = (
            f"{predictions} has no prediction for {', '.join(missing[:3])}{more} of {references}; "
            "predict them, or allow missing ones (--allow-missing) to score them as empty"
        )
        raise DatasetError(msg)
    return MatchedCases(
        tuple(CasePair(name, predicted.get(name), path) for name, path in referenced.items()),
        tuple(name for name in predicted if name not in referenced),
    )


def _list_volumes(path: Path) -> dict[str, Path]:
    """Case name to file, sorted by name."""
    if path.is_file():
        return {volume_stem(path): path}
    if not path.is_dir():
        msg = f"{path} does not exist; give a label map or a folder of them"
        raise DatasetError(msg)
    listed: dict[str, Path] = {}
    for file in sorted(path.iterdir()):
        if not file.is_file() or not is_volume_path(file):
            continue
        name = volume_stem(file)
        if name in listed:
            msg = (
                f"{path} has two label maps for {name} ({listed[name].name}, {file.name}); keep one"
            )
            raise DatasetError(msg)
        listed[name] = file
    if not listed:
        msg = f"{path} holds no label maps ({', '.join(VOLUME_SUFFIXES)}); check the folder"
        raise DatasetError(msg)
    return dict(sorted(listed.items()))
