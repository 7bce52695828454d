"""Studies: matrices of trainings as data, their cells, and the tables made of these."""

from leanseg.studies.definition import Study, TimesStudy, builtin_studies, load_study
from leanseg.studies.results import StudyResults, Table, read_study, write_reports, write_results
from leanseg.studies.run import run_study

__all__ = [
    "Study",
    "StudyResults",
    "Table",
    "TimesStudy",
    "builtin_studies",
    "load_study",
    "read_study",
    "run_study",
    "write_reports",
    "write_results",
]
