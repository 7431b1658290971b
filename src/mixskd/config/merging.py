"""Settings as mappings: dotted keys and nested ones, and one mapping over another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mixskd.config.optim import OF_AN_OPTIMIZER
from mixskd.errors import UserError


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` overridden by ``over``, one mapping at a time; another method or optimizer drops the options of the
    former.
    """
    merged = dict(base)
    for key, value in over.items():
        under = merged.get(key)
        if isinstance(under, Mapping) and isinstance(value, Mapping):
            if key == "method" and value.get("name", under.get("name")) != under.get("name"):
                under = {}
            if key == "optim" and (before := under.get("name", "sgd")) != value.get("name", before):
                under = {name: setting for name, setting in under.items() if name not in OF_AN_OPTIMIZER}
            merged[key] = merge(under, value)
        else:
            merged[key] = value
    return merged


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one of dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


# A group that is given as text alone, as in ``data: photos``.
ALONE = {"data": "data.source", "method": "method.name"}


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys, and groups given as text alone, as nested mappings.

    Raises UserError for a key within another one's value.
    """
    values: dict[str, Any] = {}
    for key, value in flat.items():
        if key in ALONE and not isinstance(value, Mapping):
            if not isinstance(value, str):
                raise UserError(f"{key} must be text or hold keys, not {value!r}")
            key = ALONE[key]
        *groups, name = str(key).split(".")
        inner = values
        for group in groups:
            inner = inner.setdefault(group, {})
            if not isinstance(inner, dict):
                raise UserError(f"{key} cannot be set: {group} is {inner!r}, which holds no keys")
        known = inner.get(name)
        inner[name] = merge(known if isinstance(known, dict) else {}, value) if isinstance(value, Mapping) else value
    return values
