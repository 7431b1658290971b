"""Reads the results of suites, RUN/evaluation/NAME.json, and checks each by the ``Result`` of its suite."""

from pathlib import Path
from typing import Any

from msgspec import Struct

from mixskd.artifacts.stored_files import read_json
from mixskd.config.records import Amount, Number, Text
from mixskd.evaluation.suites import SUITES


class Headline(Struct):
    """The main score of a suite."""

    name: Text
    value: Number


class WithHeadline(Struct):
    """The part of a suite's result that a table of runs shows."""

    headline: Headline


class SuiteResult(WithHeadline):
    """The fields that the results of all suites share."""

    images: Amount
    split: Text


def read_suite(path: Path, name: str) -> dict[str, Any]:
    """The result of the evaluation suite ``name``. Raises UserError, naming the file, for anything else."""
    return read_json(path, getattr(SUITES[name], "Result", SuiteResult), f"a result of the suite {name}")[0]


def read_headline(path: Path, name: str) -> dict[str, Any]:
    """The headline of a result of the suite ``name``: its ``name`` and ``value``. Raises UserError, naming the file."""
    found: dict[str, Any] = read_json(path, WithHeadline, f"a result of the suite {name}")[0]["headline"]
    return found
