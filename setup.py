"""Everything stands in `pyproject.toml`; here only NiiVue is fetched for what is built."""

import runpy
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithViewer(build_py):
    """Builds the package with the viewer of its reports, where npm can fetch it."""

    def run(self) -> None:
        """Fetch, then build."""
        runpy.run_path(str(Path(__file__).parent / "tools/fetch_niivue.py"))["main"]()
        super().run()


setup(cmdclass={"build_py": BuildWithViewer})
