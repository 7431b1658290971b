"""Settings as mappings: layers of settings, one over another, and dotted keys."""

from collections.abc import Mapping
from typing import Any

from mixskd.config.optim import OF_AN_OPTIMIZER
from mixskd.errors import UserError

# A group that is given as text alone, as in ``data: photos``.
ALONE = {"data": "data.source", "method": "method.name"}


def merge(*layers: Mapping[str, Any], dotted: bool = True) -> dict[str, Any]:
    """One nested mapping of settings, in which each layer overrides those before it.

    The keys of a layer may be ``dotted`` (``optim.lr``), and a group may be given as text alone (``data: photos``).
    Another method or optimizer drops the options of the former. Raises UserError for a key within another one's value.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        nested: dict[str, Any] = {} if dotted else dict(layer)
        for key, value in layer.items() if dotted else ():
            if key in ALONE and not isinstance(value, Mapping):
                if not isinstance(value, str):
                    raise UserError(f"{key} must be text or hold keys, not {value!r}")
                key = ALONE[key]
            *groups, name = str(key).split(".")
            inner = nested
            for group in groups:
                inner = inner.setdefault(group, {})
                if not isinstance(inner, dict):
                    raise UserError(f"{key} cannot be set: {group} is {inner!r}, which holds no keys")
            if isinstance(value, Mapping):
                known = inner.get(name)
                value = merge(known if isinstance(known, dict) else {}, value, dotted=False)
            inner[name] = value
        for key, value in nested.items():
            under = merged.get(key)
            if isinstance(under, Mapping) and isinstance(value, Mapping):
                if key == "method" and value.get("name", under.get("name")) != under.get("name"):
                    under = {}
                if key == "optim" and (before := under.get("name", "sgd")) != value.get("name", before):
                    under = {name: setting for name, setting in under.items() if name not in OF_AN_OPTIMIZER}
                value = merge(under, value, dotted=False)
            merged[key] = value
    return merged


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one of dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
