"""The one step that pyproject.toml cannot say: params.yaml goes into the wheel, beside the code."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class WithParams(build_py):
    """Copies the modules, then the profiles' numbers."""

    def run(self):
        super().run()
        if not self.editable_mode:  # a checkout has its own
            shutil.copy(Path(__file__).with_name("params.yaml"), Path(self.build_lib, "vlact"))


setup(cmdclass={"build_py": WithParams})
