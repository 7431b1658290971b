"""The flags that say where runs are carried out, which compare and tune share."""

import argparse
import json
from typing import Any

from mixskd.config import merge


def add_launcher_flags(p: argparse.ArgumentParser) -> None:
    """Give ``p`` the flags of the launcher; its own options are ``--launcher.OPTION``."""
    p.add_argument("--jobs", type=int, help="runs at a time; by default one per GPU, or one per core")
    p.add_argument("--devices", default="auto", help="auto, cpu, or GPUs such as 0,1")
    p.add_argument("--launcher", default="local", help="local, slurm (through submitit) or ray")


def launcher_from(arguments: argparse.Namespace) -> dict[str, Any]:
    """The launcher's arguments by name. Its options leave ``arguments.dotted``, which then holds settings only."""
    options = merge(arguments.dotted).get("launcher", {})
    arguments.dotted = {key: value for key, value in arguments.dotted.items() if not key.startswith("launcher.")}
    chosen = {name: getattr(arguments, name) for name in ("jobs", "devices", "launcher")}
    return {**chosen, "launcher_options": {key: _value(text) for key, text in options.items()}}


def _value(text: str) -> Any:
    """What JSON takes (a number, true, a list in brackets) as such, else text (``12:00``)."""
    try:
        return json.loads(text)
    except ValueError:
        return text
