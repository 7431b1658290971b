"""Count the cost of a method without computing anything: parameters, FLOPs and images forwarded."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import prod

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from mixskd.backbones import build_backbone
from mixskd.config import Experiment, MethodChoice
from mixskd.config.experiment import planned_epochs
from mixskd.config.trusted_backbones import check_typed
from mixskd.methods import method_class
from mixskd.methods.base import Method
from mixskd.training.classification import build_method, build_network
from mixskd.training.teachers import teacher_without_weights

YET_TO_TRAIN = "a run that is not there"  # such a teacher costs as the student
BATCH = 8  # the counts are per original image; batch norm wants more than one


def flop_counter() -> FlopCounterMode:
    """Counts convolutions and matrix products within its context; a multiplication and an addition are two FLOPs.

    torch counts the gradients of a grouped convolution as if it had one group, which for a depthwise one is too much
    by the number of channels.
    """
    return FlopCounterMode(
        display=False, custom_mapping={torch.ops.aten.convolution_backward: convolution_backward_flops}
    )


def convolution_backward_flops(
    out_gradient: Sequence[int],
    x: Sequence[int],
    weight: Sequence[int],
    _bias: object,
    _stride: object,
    _padding: object,
    _dilation: object,
    transposed: bool,
    _output_padding: object,
    _groups: int,
    wanted: Sequence[bool],
    **_: object,
) -> int:
    """FLOPs of the gradients by input and by weights, of which each costs as much as the forward pass."""
    positions = (x if transposed else out_gradient)[2:]
    forward = 2 * x[0] * prod(positions) * prod(weight)  # weights hold the input channels of one group only
    return forward * sum(wanted[:2])


@dataclass(frozen=True)
class Cost:
    """Of one original image; a multiplication and an addition are two FLOPs.

    Args:
        images: forwarded through the first stage: the original with its views, partners and mixes.
        training_flops: of the forward and backward passes of an update.
        inference_flops: of the deployed classifier.
        training_parameters: of the whole training graph, a frozen teacher included.
        inference_parameters: of the deployed classifier.
    """

    images: float
    training_flops: float
    inference_flops: float
    training_parameters: int
    inference_parameters: int


def count_cost(experiment: Experiment, classes: int, image_size: int | None = None) -> Cost:
    """The cost of ``experiment`` with ``classes`` classes, trained at ``image_size`` px (the backbone's usual size if
    None).

    Convolutions and matrix products are counted. With ``data.scale_schedule``, those of training are the mean over the
    epochs; with ``data.eval_size``, those of the deployed classifier are of that size. Raises UserError for a method
    that refuses the backbone.
    """
    method, size = _method_on_meta(experiment, classes, image_size)
    backbone, data, epochs = method.backbone, experiment.data, experiment.run.epochs
    parameters = sum(p.numel() for p in method.parameters()), sum(p.numel() for p in backbone.parameters())
    planned = planned_epochs(experiment.optim.restarts, epochs)
    sizes = Counter(data.size_in(epoch, planned, size) for epoch in range(epochs))
    training = 0.0
    with FakeTensorMode():
        state = _fake_state(method)
        for training_size, count in sizes.items():
            with flop_counter() as counted:
                loss, images = _training_loss(method, state, training_size)
                loss.backward()
            training += count * counted.get_total_flops() / BATCH
        deployed = {name.removeprefix("backbone."): x for name, x in state.items() if name.startswith("backbone.")}
        with flop_counter() as inference, torch.no_grad():
            functional_call(backbone.eval(), deployed, (_images(data.eval_size or size, channels=data.channels),))
    return Cost(images, training / epochs, inference.get_total_flops() / BATCH, *parameters)


def images_forwarded(experiment: Experiment) -> int:
    """How many images the method forwards for each original: itself, views, partners and mixes."""
    method, size = _method_on_meta(experiment, 10, None)
    with FakeTensorMode(), torch.no_grad():
        return round(_training_loss(method, _fake_state(method), size)[1])


def _method_on_meta(experiment: Experiment, classes: int, image_size: int | None) -> tuple[Method, int]:
    """The method with its backbone, without memory for weights, and the size of its images."""
    with torch.device("meta"):
        choice = experiment.method
        if method_class(choice.name).taught_by is not None and not choice.options.get("teacher"):
            choice = MethodChoice(choice.name, {**choice.options, "teacher": YET_TO_TRAIN})
        channels = experiment.data.channels
        network = build_network(experiment.backbone, classes, image_size, channels)
        size = image_size or network.default_size
        load = partial(
            teacher_without_weights, student=experiment.backbone, classes=classes, image_size=size, channels=channels,
            one_size=not experiment.data.scale_schedule,
        )  # fmt: skip
        method = build_method(choice, network, BATCH, experiment.run.batch, load)
    return method, size


def _fake_state(method: Method) -> dict[str, Tensor]:
    """Its parameters and buffers within :class:`FakeTensorMode`: tensors of the CPU in all but their contents.

    So autocast and draws work, which they do not on the meta device.
    """
    return {
        name: torch.empty(tensor.shape, dtype=tensor.dtype, requires_grad=tensor.requires_grad)
        for name, tensor in [*method.named_parameters(), *method.named_buffers()]
    }


def _images(size: int, *each: int, channels: int) -> Tensor:
    return torch.randn(BATCH, *each, channels, size, size)


def _training_loss(method: Method, state: dict[str, Tensor], size: int) -> tuple[Tensor, float]:
    """The loss of a batch of images of ``size`` pixels, and how many images the first stage saw for each original."""
    made, needs = partial(_images, channels=method.backbone.in_channels), method.needs
    images, labels = made(size), torch.zeros(BATCH, dtype=torch.long)
    offered = (
        ("views", needs.views > 1, made(size, max(needs.views - 1, 0))),
        ("partners", needs.partners > 0, made(size, needs.partners)),
        ("indices", needs.indices, torch.arange(BATCH)),
        ("slots", needs.slots, torch.arange(BATCH)),
        ("progress", needs.progress, torch.ones(())),
    )
    extra = {name: tensor for name, wanted, tensor in offered if wanted}
    forwarded: list[int] = []
    with method.backbone.stages[0].register_forward_pre_hook(lambda _, inputs: forwarded.append(len(inputs[0]))):
        loss = functional_call(method, state, (images, labels, method.draw(images)), extra)["loss"]
    return loss, sum(forwarded) / BATCH


def classes_from(parameters: int, experiment: Experiment) -> int:
    """The number of classes of a classifier with this number of ``parameters``, which grows linearly with it."""
    check_typed(experiment.backbone)
    with torch.device("meta"):
        made = partial(build_backbone, experiment.backbone, channels=experiment.data.channels)
        two, three = (sum(p.numel() for p in made(n).parameters()) for n in (2, 3))
    return 2 + round((parameters - two) / (three - two))
