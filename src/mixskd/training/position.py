"""How far a run is."""

from dataclasses import dataclass, field


@dataclass
class Position:
    """Steps, rows of metrics.csv, seconds and training images so far; a part of the checkpoint."""

    step: int = 0
    rows: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    images: int = 0
