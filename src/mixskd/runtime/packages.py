"""Import optional packages, with a one-line error for a missing or broken one."""

import importlib
from typing import Any

from mixskd.errors import UserError, first_line


def needed(module: str, extra: str) -> Any:
    """The package or module ``module``, which ``pip install 'mixskd[EXTRA]'`` brings.

    Raises UserError if it is not installed, or if it fails while it is imported, whatever its error: a library of
    another processor or release ends with an OSError, an AttributeError or an error class of the package.
    """
    try:
        return importlib.import_module(module)
    except Exception as error:
        package = module.partition(".")[0]
        if isinstance(error, ModuleNotFoundError) and error.name == package:
            raise UserError(f"this needs {package}: pip install 'mixskd[{extra}]'") from None
        raise UserError(
            f"{module} is installed, but fails when it is imported ({type(error).__name__}: {first_line(error)}); "
            f"install it again: pip install --force-reinstall {package}"
        ) from None
