"""Errors that a user can cause: one sentence with the file, the value and what to do."""


class LeansegError(ValueError):
    """Something that the user can mend; the command line prints it and exits with status 2.

    Example:
        >>> try:
        ...     leanseg.read("absent.nii.gz")
        ... except leanseg.LeansegError as error:
        ...     print(error)
        absent.nii.gz: there is no such file; ...
    """


class FileFormatError(LeansegError):
    """A file that cannot be read as what its name promises."""


class GeometryError(LeansegError):
    """A grid that does not describe a volume, or two grids that should agree and do not."""


class SpacingError(GeometryError):
    """A header that gives 0 as the distance of voxels."""


class DatasetError(LeansegError):
    """A folder, listing or case that does not form a usable dataset."""


class RecipeError(LeansegError):
    """A recipe, plan or option with a key or value that is not allowed."""


class ModelFileError(LeansegError):
    """A model file that is damaged, altered, or not a model file."""


class MissingDependencyError(LeansegError):
    """A command that needs an optional package which is not installed."""


class MemoryCeilingError(LeansegError):
    """A ceiling on memory that the work at hand cannot be done under."""
