"""Every bad input of the table ends in one line and code 2, at once, and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm  # noqa: F401

import mixskd.deploy.exporting  # noqa: F401 (imported here, for a row has few seconds)
from mixskd.artifacts.model_file import load_model
from mixskd.cli.main import main
from mixskd.comparison.grid import grid_from
from mixskd.data.images import check_image, decode_image
from mixskd.data.sources.arrays import load_npz
from mixskd.data.sources.manifest import load_manifest
from mixskd.data.sources.shards import expand, read_index
from mixskd.errors import exit_code
from tests import bad_inputs as table
from tests.bad_inputs import Row

ROWS = [
    *(
        Row(f"setting {' '.join(argv)[:40]!r}", lambda _, argv=argv: main(["train", *argv, "--print-config"]), says)
        for argv, says in table.SETTINGS
    ),
    *(
        Row(
            f"config {name}",
            lambda at, text=text: main(
                [
                    "train", "--print-config", "--config",
                    str(table.put(at, "a.yaml", text if isinstance(text, bytes) else text.encode())),
                ]
            ),
            says,
        )
        for name, text, says in table.CONFIGS
    ),
    Row("config of a folder", lambda at: main(["train", "--print-config", "--config", str(at)]), "a folder, a device"),
    Row("config of a pipe", lambda at: main(["train", "--print-config", "--config", str(table.pipe(at))]), "a device"),
    Row("config of a device", lambda at: main(["train", "--print-config", "--config", "/dev/zero"]), "a device"),
    Row("config of 300", lambda at: main(["train", "--print-config", "--config", table.LONG]), "name too long"),
    Row("config of none", lambda at: main(["train", "--print-config", "--config", "none"]), "cannot read"),
    *(
        Row(f"model {name}", lambda at, change=change: load_model(table.model(at, change)), says)
        for name, change, says in table.ABOUT
    ),
    *(
        Row(f"model {name}", lambda at, change=change: load_model(table.model(at, weights=change)), says)
        for name, change, says in table.WEIGHTS
    ),
    *(
        Row(f"image {name}", lambda at, f=file, c=content: decode_image(table.put(at, f, c)), says)
        for name, file, content, says in table.IMAGES
    ),
    Row("image as a pipe", lambda at: decode_image(table.pipe(at)), "not a regular file"),
    Row("image as a device", lambda at: decode_image("/dev/zero"), "not a regular file"),
    Row("image as a folder", lambda at: decode_image(at), "not a regular file"),
    Row("image that is not there", lambda at: decode_image(at / "none.jpg"), "no image at"),
    Row("image of 300 characters", lambda at: decode_image(at / table.LONG), "cannot read the image"),
    Row("image with a null in its name", lambda at: decode_image("a\0.jpg"), "cannot read the image"),
    *(
        Row(f"npz {name}", lambda at, c=change: load_npz(table.npz(at, **c)).check(), says)
        for name, change, says in table.ARRAYS
    ),
    *(Row(f"shards {name}", lambda at, p=pattern: expand(p), says) for name, pattern, says in table.PATTERNS),
    *(
        Row(f"shard {name}", lambda at, m=members: read_index([table.shard(at, m)]), says)
        for name, members, says in table.SHARDS
    ),
    Row("shard as a pipe", lambda at: read_index([table.pipe(at)]), "a device or a pipe"),
    Row("shard that is not there", lambda at: read_index([at / "none.tar"]), "there is no shard"),
    *(
        Row(f"manifest {name}", lambda at, t=text: load_manifest(table.put(at, "m.csv", t), 32).check(), says)
        for name, text, says in table.MANIFESTS
    ),
    *(Row(f"use {name}", lambda at, argv=argv: table.use(at, argv), says) for name, argv, says in table.USES),
    *(
        Row(f"export {' '.join(argv)!r}", lambda at, argv=argv: main(["export", table.exportable(at), *argv]), says)
        for argv, says in table.EXPORTS
    ),
    Row(
        "export of a free size of a net of one size",
        lambda at: main(["export", table.exportable(at, "timm/test_vit"), "--out", "w.onnx", "--dynamic-size"]),
        "timm/test_vit takes only images of 32 px; leave --dynamic-size out",
    ),
    *(
        Row(
            f"export where {package} has {error}",
            lambda at, package=package, error=error, message=message: table.export_where_broken(
                at, package, error, message
            ),
            f"{package} is installed, but fails when it is imported ({error}: {message}",
        )
        for package in ("onnx", "onnxscript", "onnxruntime")
        for error, message in table.BROKEN
    ),
    *(Row(f"grid {name}", lambda at, values=values: grid_from(values), says) for name, values, says in table.GRIDS),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.timeout(120)
@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_a_bad_input_is_one_line(
    row: Row, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MIXSKD_DEBUG", "0")
    assert exit_code(lambda: _code(row.act(tmp_path))) == 2, capsys.readouterr()
    said = capsys.readouterr().err
    assert row.says in said
    assert said.startswith("mixskd: error: ")
    assert said.count("\n") == 1
    assert len(said) < 1000
    assert said.isascii() or said.rstrip("\n").isprintable()


def _code(result: object) -> int:
    return result if isinstance(result, int) else 0


def test_the_table_is_long_and_has_each_row_once() -> None:
    assert len(ROWS) >= 200
    assert len({row.name for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("row", table.IMAGES, ids=[row[0] for row in table.IMAGES])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_what_cannot_be_decoded_is_not_verified_either(row: tuple, tmp_path: Path) -> None:
    assert exit_code(lambda: check_image(table.put(tmp_path, row[1], row[2]))) == 2
    assert exit_code(lambda: check_image("from a shard", row[2])) == 2


def test_no_image_starts_ghostscript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import subprocess

    def started(*arguments: object, **_: object) -> None:
        raise AssertionError(arguments)

    monkeypatch.setattr(subprocess, "Popen", started)
    assert exit_code(lambda: check_image(table.put(tmp_path, "a.jpg", table.EPS))) == 2
