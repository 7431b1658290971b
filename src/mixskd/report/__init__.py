"""What is shown of methods, backbones and runs. Called as a function, it is :func:`mixskd.api.report`."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any


class _Verb(ModuleType):
    """Python puts this package where ``mixskd.report`` was as soon as a module of it is imported."""

    def __call__(self, *arguments: Any, **named: Any) -> Path:
        from mixskd.api import report

        return report(*arguments, **named)


sys.modules[__name__].__class__ = _Verb
