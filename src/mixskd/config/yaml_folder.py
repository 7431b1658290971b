"""The YAML files in a folder of this package, by name: the recipes, and the grids of ablations."""

from importlib.resources import files
from itertools import takewhile
from typing import Any, NamedTuple

import yaml

from mixskd.errors import unknown


class YamlFolder(NamedTuple):
    """The files ``NAME.yaml`` of the folder ``package``; ``kind`` is what messages call one of them."""

    package: str
    kind: str

    def names(self) -> list[str]:
        """The names there are, sorted."""
        return sorted(f.name.removesuffix(".yaml") for f in files(self.package).iterdir() if f.name.endswith(".yaml"))

    def load(self, name: str) -> dict[str, Any]:
        """The values of the file ``name``. Raises UserError for an unknown name."""
        values: dict[str, Any] = yaml.safe_load(self._text(name))
        return values

    def description(self, name: str) -> str:
        """The comment at the head of the file ``name``."""
        comment = takewhile(lambda line: line.startswith("#"), self._text(name).splitlines())
        return " ".join(line.removeprefix("#").strip() for line in comment)

    def _text(self, name: str) -> str:
        if name not in self.names():
            raise unknown(self.kind, name, self.names())
        return (files(self.package) / f"{name}.yaml").read_text(encoding="utf-8")
