"""Volumes: reading, writing and moving voxels without losing their place in the world."""

from leanseg.volumes.volume import Volume

__all__ = ["Volume"]
