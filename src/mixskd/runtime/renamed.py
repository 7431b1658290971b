"""Modules under the names that they had in version 0.1, for programs and plugins that import them."""

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

RENAMED = {
    "mixskd.benchmarking.run": "mixskd.benchmarking.benchmark",
    "mixskd.comparison.run": "mixskd.comparison.comparison",
    "mixskd.deploy.model_file": "mixskd.artifacts.model_file",
    "mixskd.deploy.using": "mixskd.deploy.predicting",
    "mixskd.distributed": "mixskd.runtime.distributed",
    "mixskd.evaluation.scoring": "mixskd.tasks.scoring",
    "mixskd.methods.parts.bifpn": "mixskd.methods.frskd",
    "mixskd.needs": "mixskd.data.needs",
    "mixskd.precision": "mixskd.runtime.precision",
    "mixskd.recipes": "mixskd.config.recipes",
    "mixskd.settings": "mixskd.config.settings",
    "mixskd.typed": "mixskd.config.types",
}


class RenamedFinder(MetaPathFinder, Loader):
    """Finds each of RENAMED with the contents of the module under its present name, and warns."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname in RENAMED else None

    def exec_module(self, module: ModuleType) -> None:
        present = RENAMED[module.__name__]
        warnings.warn(f"{module.__name__} is now {present}", DeprecationWarning, stacklevel=2)
        contents = vars(importlib.import_module(present))
        vars(module).update({name: value for name, value in contents.items() if not name.startswith("__")})


def install() -> None:
    """Let the old names be imported in this process."""
    if not any(isinstance(finder, RenamedFinder) for finder in sys.meta_path):
        sys.meta_path.append(RenamedFinder())
