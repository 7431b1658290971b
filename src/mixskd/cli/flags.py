"""Flags that several verbs share, and the type of those that are whole numbers."""

import argparse

from mixskd.config.records import LARGEST


def count(text: str) -> int:
    """A whole number of a size that can be computed with. argparse reports the ValueError of other text."""
    number = int(text)
    if abs(number) > LARGEST:
        raise ValueError(text)
    return number


count.__name__ = "int"  # for argparse's message: invalid int value


def add_run(p: argparse.ArgumentParser) -> None:
    """Give ``p`` the argument that names a trained model."""
    p.add_argument("run", help="a run's folder or a .safetensors file")


def add_device(p: argparse.ArgumentParser) -> None:
    """Give ``p`` the flag of the device."""
    p.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N")
