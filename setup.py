"""Add the files that `atom-sync files` hands out to the wheel; all other metadata is in pyproject.toml."""

from pathlib import Path
from shutil import copytree

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithFiles(build_py):
    """Copies the files from the top directory of the checkout into the package."""

    def run(self) -> None:
        """Build the modules, then copy; an editable installation reads the checkout itself."""
        super().run()
        if self.editable_mode:
            return
        files = Path(self.build_lib) / "atom_saas_sync" / "files"
        copytree("monitoring", files / "monitoring", dirs_exist_ok=True)
        (files / "env").mkdir(exist_ok=True)
        self.copy_file(".env.example", str(files / "env" / ".env.example"))


setup(cmdclass={"build_py": BuildWithFiles})
