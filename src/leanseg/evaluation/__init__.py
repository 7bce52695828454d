"""Evaluation: metrics with named definitions, scores per case, summaries, comparisons."""

from leanseg.evaluation.cases import choose_ignored, choose_labels, evaluate, evaluate_cases
from leanseg.evaluation.comparison import COMPARISON_DEFINITIONS, Comparison, compare
from leanseg.evaluation.labels import parse_labels
from leanseg.evaluation.lesions import LesionScores, lesion_scores
from leanseg.evaluation.masks import LabelScore, evaluate_masks
from leanseg.evaluation.matching import CasePair, match_cases
from leanseg.evaluation.metrics import DEFINITIONS, METRIC_NAMES, METRICS, Metric
from leanseg.evaluation.overlap import dice_per_label
from leanseg.evaluation.policy import EvaluationSettings
from leanseg.evaluation.scores import Scores, read_scores
from leanseg.evaluation.strata import Scan

__all__ = [
    "COMPARISON_DEFINITIONS",
    "DEFINITIONS",
    "METRICS",
    "METRIC_NAMES",
    "CasePair",
    "Comparison",
    "EvaluationSettings",
    "LabelScore",
    "LesionScores",
    "Metric",
    "Scan",
    "Scores",
    "choose_ignored",
    "choose_labels",
    "compare",
    "dice_per_label",
    "evaluate",
    "evaluate_cases",
    "evaluate_masks",
    "lesion_scores",
    "match_cases",
    "parse_labels",
    "read_scores",
]
