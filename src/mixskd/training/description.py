"""Describe a run in a few lines for a person."""

from mixskd.errors.text import counted
from mixskd.runtime.precision import device_name
from mixskd.training.parts import Parts
from mixskd.training.probe import probe_line

UNITS = (("days", 86400), ("h", 3600), ("min", 60), ("s", 1))


def time_line(steps: int, seconds: float) -> str:
    """How long ``steps`` take, of ``seconds`` each, for a person."""
    whole = steps * seconds
    unit, size = next((unit, size) for unit, size in UNITS if whole >= 2 * size or size == 1)
    return f"time: about {whole / size:.2g} {unit} for {steps:,} steps by the first ones; scores may add to it"


def describe(parts: Parts) -> list[str]:
    """Lines on the data, the network, the method, the device and the steps."""
    experiment, data, run = parts.experiment, parts.data, parts.experiment.run
    images = ", ".join(f"{len(split):,} {name}" for name, split in data.splits.items())
    scored = data.preprocess.image_size
    size = f"{data.image_size} px" if scored == data.image_size else f"{data.image_size} px, scored at {scored} px"
    how = "each epoch is scored on val" if data.scored == "val" else "each epoch is scored on test"
    if "test" in data.splits and data.scored == "val":
        how += ", the deployed weights once on test"
    method = parts.step.method
    network = sum(p.numel() for p in method.backbone.parameters())
    training = sum(p.numel() for p in method.parameters())
    about = getattr(method, "about", None)  # a detector has no card
    cost = [] if about is None or about.compute == 1 else [f"  cost of training: {about.operations}"]
    weights = f" from {experiment.weights}" if experiment.weights else ""
    engine = parts.step.engine
    steps = len(parts.loader)
    return [
        f"data: {experiment.data.source}, {len(data.classes)} classes, {images} images of {size}; {how}",
        f"  {data.about_labels()}",
        f"network: {experiment.backbone}{weights}, {network:,} parameters; {training:,} while it trains",
        f"method: {experiment.method.name}; optimizer steps: {counted(run.epochs, 'epoch')} x {steps:,} = "
        f"{run.epochs * steps:,}, of {run.batch} images each",
        *cost,
        f"device: {device_name(parts.device)}{', compiled' if engine.compile else ''}"
        f"{', as CUDA graphs' if engine.cuda_graphs else ''}, {counted(parts.world.size, 'process', 'es')}",
        f"precision: {engine.precision}, {engine.reason}",
        *([probe_line(parts.probe)] if parts.probe else []),
    ]
