"""leanseg: compact networks that segment organs and tumours in CT and MR volumes.

What `__all__` names is public; everything else may change.
"""

import lazy_loader

# Loaded when they are first used, so that `import leanseg` costs nothing.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
