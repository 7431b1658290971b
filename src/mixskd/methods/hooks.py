"""What the training loop calls beside ``forward``."""


class Hooks:
    """Base class of what the loop trains; both hooks do nothing here.

    State that a hook changes must be a registered buffer or parameter, changed in place, so that checkpoints hold it.
    """

    def after_update(self) -> None:
        """Called after each update of the weights, as a part of the step: without reading a tensor on the host."""

    def end_epoch(self) -> None:
        """Called at the end of each epoch, before its scores are computed."""
