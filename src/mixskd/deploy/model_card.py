"""The model card of a classifier, by the template model_card.md: Markdown with the front matter of a model hub."""

from importlib.resources import files
from pathlib import Path

from jinja2 import Environment

from mixskd.artifacts.model_file import Classifier, at_temperature
from mixskd.artifacts.results import read_result
from mixskd.config.task_kinds import MULTILABEL
from mixskd.errors.text import safe

MOST_CLASSES = 1000  # that a card names
SEVERAL = {name: f"{text} (%)" for name, text in MULTILABEL.scores.items()}
COLUMNS = {"top1": "top-1 (%)", "top5": "top-5 (%)", **SEVERAL, "loss": "loss"}


def model_card(model: Classifier, path: Path, repository: str | None) -> str:
    """The card of ``model``, which was read from ``path``; a run's folder adds its method, data and scores."""
    run = read_result(path) if (path / "summary.json").is_file() else None
    about: dict[str, object] = {"backbone": model.name}
    if run is not None:
        e = run.experiment
        about |= {"method": e.method.name, "data": Path(e.data.source).name,
                  "epochs": run.summary.get("epochs", e.run.epochs), "seed": e.run.seed}  # fmt: skip
        about |= {"started from": Path(e.weights).name} if e.weights else {}
    about |= {"classes": len(model.classes), "parameters": f"{sum(p.numel() for p in model.parameters()):,}",
              "image size": f"{model.image_size} px"}  # fmt: skip
    scores = run.summary.get("scores", {}) if run else {}
    jinja = Environment(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    jinja.filters |= {
        "text": lambda value: safe(value, "markdown"),
        "numbers": lambda values: ", ".join(f"{value:g}" for value in values),
        "number": lambda value, name: "" if value is None else f"{value:.{4 if name == 'loss' else 2}f}",
    }
    template = jinja.from_string((files(__package__) / "model_card.md").read_text(encoding="utf-8"))
    return template.render(
        name=(repository or (path.resolve().name if path.is_dir() else path.stem)).rpartition("/")[2],
        model=model, run=run, repository=repository, about=about, scores=scores, most=MOST_CLASSES,
        thresholds=at_temperature(model.thresholds, model.temperature or 1.0),
        columns={key: title for key, title in COLUMNS.items() if any(key in values for values in scores.values())},
    )  # fmt: skip
