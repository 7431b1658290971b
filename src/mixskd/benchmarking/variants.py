"""The variants of a training step that a benchmark compares: each optimisation switched on or off."""

import dataclasses
from dataclasses import dataclass

from mixskd.errors import UserError, unknown
from mixskd.training.engine import Engine


@dataclass(frozen=True)
class Variant:
    """A way to execute the step, in ``processes`` processes that share the threads."""

    about: str
    engine: Engine
    keep_memory: bool = True
    processes: int = 1


def variants_of(default: Engine, device_type: str) -> dict[str, Variant]:
    """All variants by name, for a device on which ``train`` uses the engine ``default``.

    ``plain`` and ``default`` come first, then ``default`` without each of its optimisations, then with others.
    """

    def but(about: str, *, keep_memory: bool = True, processes: int = 1, **changes: object) -> Variant:
        """The engine ``default`` with ``changes``."""
        return Variant(about, dataclasses.replace(default, **changes), keep_memory, processes)  # type: ignore[arg-type]

    variants = {
        "plain": Variant("eager, fp32, contiguous, as the released code runs", Engine(), keep_memory=False),
        "default": but("what train does"),
        "low_precision": Variant(
            f"plain with {default.precision} and channels last",
            Engine(default.precision, channels_last=True),
            keep_memory=False,
        ),
    }
    if default.precision != "fp32":
        variants["without_low_precision"] = but("default in fp32", precision="fp32")
    if default.channels_last:
        variants["without_channels_last"] = but("default in contiguous layout", channels_last=False)
    if default.fused:
        variants["without_fused"] = but(
            "default with the unfused optimizer, which no CUDA graph can hold", fused=False, cuda_graphs=False
        )
    if default.compile:
        variants["without_compile"] = but("default, eager within the graph", compile=False)
    if default.cuda_graphs:
        variants["without_graphs"] = but("default, launched from the host", cuda_graphs=False)
        variants["eager"] = but("default, neither compiled nor a graph", compile=False, cuda_graphs=False)
    variants["with_checkpointing"] = but(
        "default, maps within stages computed again",
        checkpoint=True,
        cuda_graphs=default.cuda_graphs and default.compile,
    )
    if device_type == "cpu":
        variants["without_kept_memory"] = but("default, freed memory returned to the system", keep_memory=False)
        if not default.compile:
            variants["with_compile"] = but("default, compiled", compile=True)
        variants["two_processes"] = but(
            "default, two processes with half of the batch and of the threads each", processes=2
        )
    return variants


# Timed on request only: a minute of compilation on a CPU, more processes than the others, or no faster by intention.
ON_REQUEST = ("with_compile", "two_processes", "with_checkpointing")


def choose(variants: dict[str, Variant], names: str | None) -> dict[str, Variant]:
    """The ``variants`` with these comma-separated ``names``; all but ON_REQUEST if None.

    Raises UserError for an unknown name.
    """
    if names is None:
        return {name: variant for name, variant in variants.items() if name not in ON_REQUEST}
    chosen = [name.strip() for name in names.split(",") if name.strip()]
    if not chosen:
        raise UserError(f"--variants names no variant; choose from {', '.join(variants)}")
    for name in chosen:
        if name not in variants:
            raise unknown("variant", name, variants)
    return {name: variants[name] for name in chosen}
