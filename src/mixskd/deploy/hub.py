"""Publishes a classifier with its preprocessing and a model card, in a folder or on a hub."""

import re
import shutil
import tempfile
from pathlib import Path

from mixskd.artifacts.model_file import load_model
from mixskd.deploy.exports.description import describe
from mixskd.deploy.model_card import model_card
from mixskd.errors import UserError, first_line
from mixskd.errors.text import to_json
from mixskd.runtime.files import replacing, write_text
from mixskd.runtime.packages import needed

MODEL, PREPROCESSING, CARD = FILES = ("model.safetensors", "preprocess.json", "README.md")
REPOSITORY = re.compile(r"(?:\w[\w.-]{0,95}/)?\w[\w.-]{0,95}", re.ASCII)


def push(
    path: str | Path,
    repository: str | None = None,
    *,
    to_folder: str | Path | None = None,
    public: bool = False,
    overwrite: bool = False,
) -> str:
    """Publish the classifier at ``path``, a run's folder or a model file; returns where it then is.

    The files are ``model.safetensors``, ``preprocess.json`` (classes, size, mean, std, resize) and ``README.md``, the
    card. With ``to_folder`` they are written there and nothing is uploaded; the card alone names ``repository``.
    Otherwise they go to the repository of that name on the Hugging Face Hub. If it does not exist, it is made: private,
    unless ``public``.

    Raises UserError if neither is given, for files that exist without ``overwrite``, for a missing huggingface_hub, and
    for an upload that the network or the hub refuses.
    """
    if repository is None and to_folder is None:
        raise UserError("name the place to push to: a repository such as ME/MODEL, or --to-folder")
    if repository is not None and not REPOSITORY.fullmatch(repository):
        raise UserError(f"{repository!r} is not the name of a repository; write ME/MODEL")
    if to_folder is not None:
        folder = Path(to_folder)
        if there := [name for name in FILES if (folder / name).exists() and not overwrite]:
            raise UserError(f"{folder / there[0]} exists already; name another folder, or --overwrite")
        write_files(Path(path), folder, repository)
        return str(folder)
    assert repository is not None
    hub = needed("huggingface_hub", "hub")
    with tempfile.TemporaryDirectory() as temporary:
        write_files(Path(path), Path(temporary), repository)
        try:
            api = hub.HfApi()
            name = api.create_repo(repository, private=not public, exist_ok=True).repo_id
            api.upload_folder(repo_id=name, folder_path=temporary, commit_message="Model, preprocessing and card")
        except Exception as error:  # the hub's own errors, those of its network library, of its files and of a login
            raise UserError(
                f"cannot push to {repository}: {first_line(error)}; check the network, the name and the login "
                "(hf auth login), or write the files with --to-folder"
            ) from None
    return f"https://huggingface.co/{name}"


def write_files(path: Path, folder: Path, repository: str | None) -> None:
    """Write the three files of the classifier at ``path`` into ``folder``, each whole or not at all."""
    model = load_model(path)
    card = model_card(model, path, repository)
    with replacing(folder / MODEL) as temporary:
        shutil.copyfile(path / MODEL if path.is_dir() else path, temporary)
    fitted = {"temperature": model.temperature, "threshold": model.threshold}
    about = {**describe(model, temperature=model.temperature), **fitted}
    write_text(folder / PREPROCESSING, to_json(about, indent=2) + "\n")
    write_text(folder / CARD, card)
