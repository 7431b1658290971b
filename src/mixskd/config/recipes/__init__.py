"""Named experiments: a YAML file each, whose first lines say what it should reach and how long it takes."""

from mixskd.config.yaml_folder import YamlFolder

_recipes = YamlFolder(__name__, "recipe")
names, load, description = _recipes.names, _recipes.load, _recipes.description


def fitting(source: str | None, weights: str | None) -> str:
    """The recipe for the data set ``source`` (the digits if None), on a network that starts from ``weights`` or not.

    ``finetune`` is for photographs: it makes images of 224 px, which arrays do not become.
    """
    if source is None or source == "digits":
        return "digits"
    if source in ("cifar10", "cifar100"):
        return "cifar100"
    if source == "imagenet":
        return "imagenet"
    if source.endswith(".npz") or source == "synthetic":
        return "small_images"
    return "photos" if weights is None else "finetune"
