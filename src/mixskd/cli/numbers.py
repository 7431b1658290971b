"""Numbers of the flags that are not settings."""

from mixskd.config.records import LARGEST


def count(text: str) -> int:
    """A whole number of a size that can be computed with. argparse reports the ValueError of other text."""
    number = int(text)
    if abs(number) > LARGEST:
        raise ValueError(text)
    return number


count.__name__ = "int"  # for argparse's message: invalid int value
