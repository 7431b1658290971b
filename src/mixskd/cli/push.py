"""``mixskd push``."""

import argparse

from mixskd.cli.flags import add_run
from mixskd.errors.terminal import show

SUMMARY = "Publish a classifier with a model card on the Hugging Face Hub, or in a folder."


def add_flags(p: argparse.ArgumentParser) -> None:
    """Give ``p`` the flags of the verb."""
    add_run(p)
    p.add_argument("repository", nargs="?", metavar="REPO_ID", help="a repository of the Hugging Face Hub: ME/MODEL")
    p.add_argument("--to-folder", metavar="DIR", help="write the files there and send nothing")
    p.add_argument("--public", action="store_true", help="make a new repository public; it is private by default")
    p.add_argument("--overwrite", action="store_true", help="replace the files in --to-folder")


def run(arguments: argparse.Namespace) -> None:
    """Publish a classifier with its card, and print where."""
    from mixskd.deploy.hub import push

    place = push(
        arguments.run, arguments.repository, to_folder=arguments.to_folder, public=arguments.public,
        overwrite=arguments.overwrite,
    )  # fmt: skip
    show(place)
