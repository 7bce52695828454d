"""The phantom: synthetic abdominal CT of virtual patients, with exact labels.

Anatomy is drawn from smooth shapes in an average body, displaced and scaled for each patient,
and painted tissue over tissue onto the scan's grid with texture and noise.
"""

from leanseg.datasets.phantom.anatomy import LABELS
from leanseg.datasets.phantom.dataset import phantom
from leanseg.datasets.phantom.scan import PhantomOptions, make_phantom

__all__ = ["LABELS", "PhantomOptions", "make_phantom", "phantom"]
