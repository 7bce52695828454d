from .cases import choose_ignored, choose_labels, evaluate, evaluate_cases
from .comparison import COMPARISON_DEFINITIONS, Comparison, compare
from .labels import parse_labels
from .lesions import LesionScores, lesion_scores
from .masks import LabelScore, evaluate_masks
from .matching import CasePair, match_cases
from .metrics import DEFINITIONS, METRIC_NAMES, METRICS, Metric
from .overlap import dice_per_label
from .policy import EvaluationSettings
from .scores import Scores, read_scores
from .strata import Scan

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
