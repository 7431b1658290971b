"""Read YAML files safely: plain values only, a limited size, no key twice."""

from pathlib import Path
from typing import Any

import yaml

from mixskd.errors import UserError, first_line

LARGEST_FILE = 1_000_000  # bytes
MOST_VALUES = 100_000
DEEPEST = 30
LONGEST_NUMBER = 100  # characters


class _Loader(yaml.SafeLoader):
    """The safe loader without merge keys, whose expansion has no bound, and with an error for a key given twice."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                raise yaml.YAMLError("merge keys (<<) are not read; write the keys out")

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.YAMLError(f"the key {key.value!r} is given twice")
                seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_number(self, node: yaml.ScalarNode) -> Any:
        """An int or a float. Raises YAMLError for one so long that no program could use or print it."""
        if len(node.value) > LONGEST_NUMBER:
            raise yaml.YAMLError(f"a number has {len(node.value):,} characters; it may have {LONGEST_NUMBER}")
        is_int = node.tag == "tag:yaml.org,2002:int"
        return self.construct_yaml_int(node) if is_int else self.construct_yaml_float(node)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_number)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_number)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises UserError if it is missing, too large, or holds none."""
    try:
        if path.exists() and not path.is_file():
            raise yaml.YAMLError("it is a folder, a device or a pipe")
        if (size := path.stat().st_size) > LARGEST_FILE:
            raise yaml.YAMLError(f"it has {size:,} bytes; a configuration has up to {LARGEST_FILE:,}")
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
        _check_size(values)
    except (OSError, ValueError, OverflowError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"cannot read the configuration {path}: {first_line(error)}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} is not a configuration: it must hold keys such as backbone, method, data")
    return values


def _check_size(values: Any) -> None:
    """Raises YAMLError if ``values``, with every alias written out, are too many or too deep."""
    count, waiting = 0, [(values, 0)]
    while waiting:
        value, depth = waiting.pop()
        count += 1
        if count > MOST_VALUES or depth > DEEPEST:
            raise yaml.YAMLError(f"it has more than {MOST_VALUES:,} values, or more than {DEEPEST} levels")
        if isinstance(value, dict):
            waiting += [(part, depth + 1) for part in value.values()]
        elif isinstance(value, list | tuple | set):
            waiting += [(part, depth + 1) for part in value]
