"""The version of the distribution."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("leanseg")
except PackageNotFoundError:  # Source files that are not installed.
    __version__ = "0+unknown"
