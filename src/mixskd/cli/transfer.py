"""The verbs ``mixskd detect`` and ``mixskd segment``."""

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path

from mixskd.cli import train as cli_train
from mixskd.cli.experiment import add_experiment_flags, add_run_flags, experiment_from
from mixskd.cli.flags import add_run
from mixskd.config import Experiment, flatten, recipes
from mixskd.config.settings import GROUPS, default_text, fields_of, section, settings_of
from mixskd.config.task_kinds import BY_VERB
from mixskd.errors import UserError
from mixskd.errors.terminal import show
from mixskd.errors.text import to_json
from mixskd.transfer.config import NOT_USED, UNSUPPORTED
from mixskd.transfer.detection.config import DetectorConfig
from mixskd.transfer.segmentation.config import DeepLabConfig

DATA = {
    "detect": "a folder in the format of COCO, YOLO or Pascal VOC",
    "segment": "a folder of images and masks, or of Pascal VOC, ADE20K, COCO-Stuff or CamVid",
}
CONFIGS = {"detect": DetectorConfig, "segment": DeepLabConfig}


def train(arguments: argparse.Namespace) -> None:
    """Train on annotated images and print the scores and the model file."""
    cli_train.run(arguments, described)


def described(arguments: argparse.Namespace) -> Experiment:
    """The experiment that the flags describe: the verb's recipe, unless another one or a configuration is named.

    The weights of a run of mixskd name their backbone, so that it need not be given.
    """
    known = BY_VERB[arguments.verb].networks
    continues = arguments.resume and arguments.out and (Path(arguments.out) / "config.yaml").is_file()
    if not (arguments.recipe or arguments.config or continues):
        arguments.recipe = BY_VERB[arguments.verb].recipe
    if arguments.weights and not arguments.backbone:
        from mixskd.transfer.starting_weights import description_of

        arguments.backbone = description_of(arguments.weights).get("backbone")
    if arguments.skip_bad_annotations:
        arguments.dotted["method.skip_bad_annotations"] = "true"
    experiment = experiment_from(arguments)
    if experiment.method.name not in known:
        name = experiment.method.name
        raise UserError(f"mixskd {arguments.verb} trains {', '.join(known)}, not {name}; leave --method out")
    return experiment


def evaluate(arguments: argparse.Namespace) -> None:
    """Print the scores of a trained network on one split, with those of each class."""
    from mixskd.transfer.evaluating import evaluate as run

    scores = run(arguments.run, arguments.data, split=arguments.split)
    if arguments.json:
        print(to_json(scores))
        return
    show(f"{scores['split']} {BY_VERB[arguments.verb].line(scores)}  on {scores['images']} images")
    for name, value in scores["per_class"].items():
        show(f"  {name}: {'absent' if value is None else f'{value:.2f} %'}")


def predict(arguments: argparse.Namespace) -> None:
    """Draw what is found on images, write predictions.json, and print where."""
    from mixskd.transfer.predicting import predict as run

    threshold, size = getattr(arguments, "threshold", 0.5), arguments.batch_size
    entries = run(arguments.run, arguments.images, arguments.out, threshold=threshold, batch_size=size)
    kind = "boxes" if arguments.verb == "detect" else "masks"
    show(f"{len(entries)} {kind} in {Path(arguments.out) / 'predictions.json'}, drawn images beside it")


def export(arguments: argparse.Namespace) -> None:
    """Write a trained network as ONNX, and print where."""
    from mixskd.deploy.exports.transfer_onnx import export_onnx

    size = getattr(arguments, "size", None)
    show(export_onnx(arguments.run, arguments.out, size=size, overwrite=arguments.overwrite))


def settings_text(verb: str) -> str:
    """The settings that ``verb`` uses, with the defaults of its recipe, for ``--help``."""
    kind = BY_VERB[verb]
    defaults = {k: tuple(v) if isinstance(v, list) else v for k, v in flatten(recipes.load(kind.recipe)).items()}
    meanings = {"data.source": f"{DATA[verb]}.", "method.name": f"{' or '.join(kind.networks)}."}
    groups = [(title, settings_of(group)) for group, (title, _) in GROUPS.items()]
    groups.append(("Network", fields_of(CONFIGS[verb], "method.")))
    parts = [f"Every setting has a flag with its dotted name. The defaults are those of the recipe {kind.recipe}.\n"]
    for title, settings in groups:
        used = [
            dataclasses.replace(
                setting,
                default=default_text(defaults[setting.key]) if setting.key in defaults else setting.default,
                meaning=meanings.get(setting.key, setting.meaning),
            )
            for setting in settings
            if setting.key not in (*UNSUPPORTED, *NOT_USED)
        ]
        parts.append(section(title, used))
    return "\n".join(parts)


def add_flags(parser: argparse.ArgumentParser, verb: str) -> None:
    """Give ``parser`` the actions of ``verb``, ``detect`` or ``segment``."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    def action(name: str, function: Callable[[argparse.Namespace], None], summary: str) -> argparse.ArgumentParser:
        own_help = name != "train"  # that of the settings
        added = actions.add_parser(name, help=summary, description=summary, allow_abbrev=False, add_help=own_help)
        added.set_defaults(function=function)
        return added

    what = "boxes" if verb == "detect" else "masks"
    p = action("train", train, f"Train a network that finds {what}.")
    add_experiment_flags(p, BY_VERB[verb].networks, lambda given, command: settings_text(verb), DATA[verb])
    add_run_flags(p)
    p.add_argument("--skip-bad-annotations", action="store_true", help="leave bad annotations out and count them")

    p = action("evaluate", evaluate, "Score a trained network on a split of its data, or of others.")
    p.add_argument("run", help="a run's folder, or a .safetensors file with --data")
    p.add_argument("--data", help="a data set; the run's data by default")
    p.add_argument("--split", help="val or test; test by default, else val")
    p.add_argument("--json", action="store_true")

    p = action("predict", predict, f"Draw {what} on images, and write them as JSON.")
    add_run(p)
    p.add_argument("images", nargs="+", metavar="IMAGE", help="image files, and folders of images")
    p.add_argument("--out", default="predictions", help="the folder to write to")
    p.add_argument("--batch-size", type=int, default=8, help="images of one size that are predicted together")
    if verb == "detect":
        p.add_argument("--threshold", type=float, default=0.5, help="the lowest score of a box that is drawn")

    p = action("export", export, "Write a trained network as ONNX.")
    add_run(p)
    p.add_argument("--out", help="the .onnx file to write; beside the model by default")
    p.add_argument("--overwrite", action="store_true", help="replace a file that exists")
    if verb == "segment":
        p.add_argument("--size", type=int, help="height and width of the images; those of the crops by default")
    for added in actions.choices.values():
        added.set_defaults(usage=added.format_usage())
