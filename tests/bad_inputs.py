"""Rows of the table of bad inputs: how each file or setting is made, who reads it, and what is said of it."""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import json
import os
import struct
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from mixskd.artifacts.described_weights import content_digest
from mixskd.artifacts.model_file import save_model
from mixskd.backbones import build_backbone
from mixskd.cli.main import main


class Row(NamedTuple):
    """``act`` on a folder, with no traceback, one line that holds ``says``, and exit code 2."""

    name: str
    act: Callable[[Path], object]
    says: str


HUGE = "9" * 30
LONG = "x" * 300

# What stands in a command line of ``mixskd train --print-config``.
SETTINGS: list[tuple[list[str], str]] = [
    (["--epochs", "nan"], "run.epochs must be a whole number"),
    (["--epochs", "inf"], "run.epochs must be a whole number"),
    (["--epochs", "1.5"], "run.epochs must be a whole number"),
    (["--epochs", ""], "run.epochs must be a whole number"),
    (["--epochs", "0"], "run.epochs must be from 1 to 1,000,000"),
    (["--epochs", "-3"], "run.epochs must be from 1 to 1,000,000"),
    (["--epochs", "1e300"], "run.epochs must be a whole number"),
    (["--epochs", HUGE], "run.epochs must be at most"),
    (["--epochs", "9" * 5000], "run.epochs must be"),
    (["--seed", str(2**63)], "run.seed must be at most"),
    (["--seed", HUGE], "run.seed must be at most"),
    (["--seed", "0x10"], "run.seed must be a whole number"),
    (["--batch-size", "10000000"], "run.batch_size must be from 1 to 1,000,000"),
    (["--batch-size", "0"], "run.batch_size must be from 1 to 1,000,000"),
    (["--data.image-size", "1000000"], "data.image_size must be from 1 to 4,096"),
    (["--data.image-size", "-1"], "data.image_size must be from 1 to 4,096"),
    (["--data.eval-size", "0"], "data.eval_size must be from 1 to 4,096"),
    (["--data.resize", "stretch"], "data.resize must be"),
    (["--data.scale-schedule", "1,2,3,4,5,6,7,8,9"], "data.scale_schedule"),
    (["--data.workers", "100000"], "data.workers must be from 0 to 1,024"),
    (["--data.workers", "two"], "data.workers must be a whole number"),
    (["--data.holdout", "nan"], "data.holdout must"),
    (["--data.holdout", "inf"], "data.holdout must be finite"),
    (["--data.holdout", "1"], "data.holdout must"),
    (["--data.flip", "maybe"], "data.flip must be true or false"),
    (["--data.per-class", "0"], "data.per_class must be 1 or above"),
    (["--data.per-class", str(2**64)], "data.per_class must be at most"),
    (["--data", LONG], "data.source is too long"),
    (["--data", "a/" + LONG], "data.source is too long"),
    (["--data", "p/" * 3000], "data.source is too long"),
    (["--data", "a\x00b"], "data.source holds a control character"),
    (["--data", "a\nb"], "data.source holds a control character"),
    (["--data", "\x1b[2J"], "data.source holds a control character"),
    (["--data.augment", "\x07"], "data.augment holds a control character"),
    (["--out", LONG], "out is too long"),
    (["--out", "é" * 200], "out is too long"),
    (["--out", "a\x00"], "out holds a control character"),
    (["--backbone", LONG], "backbone is too long"),
    (["--backbone", "a\rb"], "backbone holds a control character"),
    (["--weights", LONG], "weights is too long"),
    (["--method", LONG], "method.name is too long"),
    (["--method", "mix skd"], "unknown method 'mix skd'"),
    (["--optim.lr", "inf"], "optim.lr must be finite"),
    (["--optim.lr", "-inf"], "optim.lr must be finite"),
    (["--optim.lr", "nan"], "optim.lr must be above 0"),
    (["--optim.lr", "0"], "optim.lr must be above 0"),
    (["--optim.lr", "fast"], "optim.lr must be a number"),
    (["--optim.lr", "1e999"], "optim.lr must be a number"),
    (["--optim.momentum", "nan"], "optim.momentum must be 0 or above"),
    (["--optim.momentum", "inf"], "optim.momentum must be finite"),
    (["--optim.weight-decay", "inf"], "optim.weight_decay must be finite"),
    (["--optim.warmup-epochs", "inf"], "optim.warmup_epochs must be finite"),
    (["--optim.warmup-epochs", "1e308"], "optim.warmup_epochs must be at most 1e+15"),
    (["--optim.clip-norm", "-1"], "optim.clip_norm must be 0 or above"),
    (["--optim.ema", "nan"], "optim.ema must be"),
    (["--optim.ema", "1"], "optim.ema must be"),
    (["--optim.decay", "inf"], "optim.decay must be finite"),
    (["--optim.milestones", "1,two"], "optim.milestones must be a list of whole numbers"),
    (["--optim.milestones", "1,inf"], "optim.milestones must be a list of whole numbers"),
    (["--optim.milestones", f"1,{HUGE}"], "optim.milestones must be at most"),
    (["--optim.schedule", "linear"], "optim.schedule must be step, cosine or poly"),
    (["--optim.nesterov", "2"], "optim.nesterov must be true or false"),
    (["--run.accumulate", "3"], "does not divide"),
    (["--run.log-every", "0"], "run.log_every must be 1 or above"),
    (["--run.checkpoint-every-steps", "-1"], "run.checkpoint_every_steps must be 0 or above"),
    (["--run.progress", "perhaps"], "run.progress must be true or false"),
    (["--run.precision", "fp8"], "run.precision must be auto"),
    (["--run.compile", "sometimes"], "run.compile must be auto"),
    (["--method.temperature", "nan"], "temperature must be"),
    (["--method.temperature", "inf"], "temperature must be finite"),
    (["--method.alpha", "inf"], "alpha must be finite"),
    (["--method.discriminator", "\x1b]0;x\x07"], "discriminator holds a control character"),
    (["--run", "3"], "unknown argument '--run'"),
    (["--run.", "3"], "unknown key run."),
    (["--.", "3"], "unknown key"),
    (["--optim.lr.x", "3"], "optim.lr"),
]

# What stands in the file of ``--config``.
CONFIGS: list[tuple[str, str | bytes, str]] = [
    ("empty", "", "it must hold keys"),
    ("a list", "[1, 2]", "it must hold keys"),
    ("a number", "3", "it must hold keys"),
    ("text", "photos", "it must hold keys"),
    ("no YAML", "a: [1", "cannot read the configuration"),
    ("a tab", "a:\n\tb: 1", "cannot read the configuration"),
    ("not UTF-8", b"\xff\xfe\x00a", "cannot read the configuration"),
    ("binary", bytes(range(256)), "cannot read the configuration"),
    ("two documents", "a: 1\n---\nb: 2", "cannot read the configuration"),
    ("an object", "a: !!python/object/apply:os.system ['true']", "cannot read the configuration"),
    ("a name of Python", "a: !!python/name:os.system", "cannot read the configuration"),
    ("an alias bomb", "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(9)), "values"),
    ("a list that holds itself", "a: &a [*a]", "values"),
    ("a merge bomb", "a: &a {x: 1}\nb: {<<: [*a, *a]}", "merge keys"),
    ("too deep", "a: " + "[" * 60 + "]" * 60, "levels"),
    ("much too deep", "a: " + "[" * 20000 + "]" * 20000, "cannot read the configuration"),
    ("an int of 5,000 digits", "run: {seed: " + "9" * 5000 + "}", "a number has 5,000 characters"),
    ("a sexagesimal int", "out: 1" + ":59" * 3000, "a number has 9,001 characters"),
    ("a sexagesimal float", "optim: {lr: 1" + ":59" * 300 + ".5}", "a number has 903 characters"),
    ("too large", "a: " + "x" * 1_000_001, "1,000,004 bytes"),
    ("too many values", "a: &a [" + "1," * 1000 + "1]\nb: [" + "*a," * 120 + "1]", "values"),
    ("a key twice", "run: {epochs: 1}\nrun: {epochs: 2}", "'run' is given twice"),
    ("a key twice within", "run: {epochs: 1, epochs: 2}", "'epochs' is given twice"),
    ("a key twice in two spellings", "run: {batch_size: 1, batch-size: 2}", "run.batch_size is given twice"),
    ("a number as key", "3: 4", "unknown key 3"),
    ("null as key", "null: 4", "unknown key None"),
    ("a list as key", "? [a, b]\n: 1", "cannot read the configuration"),
    ("truth as key", "on: 1", "unknown key True"),
    ("a huge integer", f"run: {{seed: {HUGE}}}", "run.seed must be at most"),
    ("a huger integer", f"run: {{seed: {'9' * 5000}}}", "cannot read the configuration"),
    ("not a number", "optim: {weight_decay: .nan}", "optim.weight_decay must be"),
    ("infinity", "optim: {weight_decay: .inf}", "optim.weight_decay must be finite"),
    ("a date", "run: {epochs: 2020-01-01}", "run.epochs must be a whole number"),
    ("an impossible date", "run: {epochs: 2020-13-45}", "cannot read the configuration"),
    ("a list for a number", "run: {epochs: [1]}", "run.epochs must be a whole number"),
    ("a mapping for a number", "run: {epochs: {a: 1}}", "run.epochs"),
    ("a mapping for text", "backbone: {a: 1}", "backbone must be text"),
    ("a list for text", "backbone: [resnet18]", "backbone must be text"),
    ("bytes for text", "backbone: !!binary aGVsbG8=", "backbone must be text"),
    ("a date for text", "backbone: 2020-01-01", "backbone must be text"),
    ("a set for a list", "optim: {milestones: !!set {1, 2}}", "optim.milestones must be"),
    ("a mapping for a list", "optim: {milestones: {1: 2}}", "optim.milestones must be"),
    ("a list of lists", "optim: {milestones: [[1]]}", "optim.milestones must be a list of whole numbers"),
    ("a list of nothing", "optim: {milestones: [null]}", "optim.milestones has no value"),
    ("a list for a group", "run: [1]", "run must hold keys"),
    ("a number for a group", "run: 3", "run must hold keys"),
    ("nothing for a group", "run:", "run must hold keys"),
    ("a number for the data", "data: 3", "data must be text or hold keys"),
    ("a list for the method", "method: [mixskd]", "method must be text or hold keys"),
    ("a list for the method's name", "method: {name: [mixskd]}", "method.name must be text"),
    ("text with an escape", 'data: "\\e[2J"', "data.source holds a control character"),
    ("text with a null", 'data: "a\\0b"', "data.source holds a control character"),
    ("truth for a number", "run: {epochs: true}", "run.epochs must be a whole number"),
    ("a dotted key within", "run.epochs.x: 1", "run.epochs"),
    ("an option that no method has", "method: {name: mixup, temperature: 3}", "unknown key method.temperature"),
]  # fmt: skip

ABOUT: list[tuple[str, dict[str, Any], str]] = [
    *((f"{key} missing", {key: ...}, f"lacks {key}") for key in ("backbone", "classes", "image_size", "mean", "std")),
    *(
        (f"{key} as {kind}", {key: value}, says)
        for key, says in {
            "backbone": "backbone must be text",
            "classes": "classes must be a list",
            "image_size": "image_size must be a whole number",
            "mean": "mean must be a list",
            "std": "std must be a list",
        }.items()
        for kind, value in {"null": None, "true": True, "a mapping": {"a": 1}, "a float": 0.5}.items()
    ),
    ("format missing", {"format": ...}, "was not written by mixskd"),
    ("format as a number", {"format": 2}, "was not written by mixskd"),
    ("a format to come", {"format": "mixskd-model-99"}, "was written by a newer mixskd"),
    ("digest missing", {"digest": ...}, "its digest differs"),
    ("digest of another", {"digest": "0" * 64}, "its digest differs"),
    ("digest as a number", {"digest": 1}, "digest must be text"),
    ("size 0", {"image_size": 0}, "image_size must be a whole number at least 1"),
    ("size below 0", {"image_size": -32}, "image_size must be a whole number at least 1"),
    ("size 10 ** 9", {"image_size": 10**9}, "image_size must be a whole number at most 4096"),
    ("size as text", {"image_size": "32"}, "image_size must be a whole number"),
    ("two means", {"mean": [0.5, 0.5]}, "mean has 2 numbers and std 3"),
    ("four means", {"mean": [0.5] * 4}, "mean has 4 numbers and std 3"),
    ("mean NaN", {"mean": [float("nan"), 0.5, 0.5]}, "mean[0] must be a number"),
    ("mean infinite", {"mean": [0.5, float("inf"), 0.5]}, "mean[1] must be a number"),
    ("mean as text", {"mean": ["0.5"] * 3}, "mean[0] must be a number"),
    ("mean too large for a float", {"mean": [10**400, 0.5, 0.5]}, "mean[0]: Number out of range"),
    ("std 0", {"std": [0, 0.5, 0.5]}, "std[0] must be a number above 0"),
    ("std below 0", {"std": [0.5, -1, 0.5]}, "std[1] must be a number above 0"),
    ("std NaN", {"std": [0.5, 0.5, float("nan")]}, "std[2] must be a number"),
    ("temperature 0", {"temperature": 0}, "temperature must be a number above 0"),
    ("temperature NaN", {"temperature": float("nan")}, "temperature must be a number"),
    ("temperature infinite", {"temperature": float("inf")}, "temperature must be a number"),
    ("temperature as null", {"temperature": None}, "temperature must be a number"),
    ("temperature as text", {"temperature": "1"}, "temperature must be a number"),
    ("threshold below 0", {"threshold": -0.1}, "threshold must be a number at least 0"),
    ("threshold above 1", {"threshold": 1.1}, "threshold must be a number at most 1"),
    ("threshold as truth", {"threshold": True}, "threshold must be a number"),
    ("no class", {"classes": []}, "classes must be a list of length at least 1"),
    ("classes as one text", {"classes": "abc"}, "classes must be a list"),
    ("a class as a number", {"classes": ["a", 1, "c"]}, "classes[1] must be text"),
    ("a class as null", {"classes": ["a", None, "c"]}, "classes[1] must be text"),
    ("a class without name", {"classes": ["a", "", "c"]}, "classes[1] must be text of length at least 1"),
    ("a class of 10,000 characters", {"classes": ["a", "b" * 10_000, "c"]}, "classes[1] must be text of length"),
    ("one class too many", {"classes": list("abcd")}, "its weights do not fit"),
    ("100,000 classes", {"classes": [str(i) for i in range(100_000)]}, "its weights do not fit"),
    ("no backbone of ours", {"backbone": "resnet8"}, "unknown backbone"),
    ("another backbone", {"backbone": "resnet18"}, "its weights do not fit"),
    ("an endless backbone", {"backbone": "wrn_600004_1"}, "is too large"),
    ("a wide backbone", {"backbone": "wrn_10_999999"}, "is too large"),
    ("a backbone of 5,000 digits", {"backbone": f"wrn_{'9' * 100}_1"}, "unknown backbone"),
    ("a deeper backbone", {"backbone": "wrn_994_1"}, "its weights do not fit"),
    ("a backbone from a hub", {"backbone": "timm/hf-hub:someone/something"}, "which the installed timm does not have"),
    ("a backbone from a folder", {"backbone": "timm/local-dir:/tmp/x"}, "which the installed timm does not have"),
    ("a backbone by another scheme", {"backbone": "timm/hf_hub:a/b"}, "which the installed timm does not have"),
    ("a backbone that climbs", {"backbone": "timm/../../etc/passwd"}, "which the installed timm does not have"),
    ("a backbone with an escape", {"backbone": "timm/\x1b[2J"}, "which the installed timm does not have"),
    ("a backbone of timm that is not there", {"backbone": "timm/resnet999"}, "which the installed timm does not have"),
    ("a backbone of timm without weights for it", {"backbone": "timm/resnet18"}, "its weights do not fit"),
    ("a backbone of 300 characters", {"backbone": LONG}, "unknown backbone"),
]  # fmt: skip


@functools.cache
def whole_model() -> bytes:
    """The bytes of a model file of three classes."""
    with tempfile.TemporaryDirectory() as folder:
        save_model(
            build_backbone("wrn_10_1", 3), Path(folder) / "m", backbone_name="wrn_10_1", classes=["a", "b", "c"],
            image_size=8, mean=(0.5,) * 3, std=(0.5,) * 3,
        )  # fmt: skip
        return (Path(folder) / "m").read_bytes()


def model(folder: Path, change: dict[str, Any] | None = None, weights: Callable[[dict], object] | None = None) -> Path:
    """A model file whose metadata and weights are changed; the digest is that of the changed."""
    path = put(folder, "model.safetensors", whole_model())
    tensors = load_file(path)
    if weights is not None:
        weights(tensors)
    about = {**described(path), **(change or {})}
    about = {key: value for key, value in about.items() if value is not ...}
    if not {"digest", "format"} & (change or {}).keys():
        try:
            about["digest"] = content_digest(about, tensors)
        except ValueError:  # no plain values: refused before the digest is looked at
            about["digest"] = "0" * 64
    save_file(tensors, path, metadata={"mixskd": json.dumps(about)})
    return path


def described(path: Path) -> dict[str, Any]:
    """The metadata of a model file."""
    content = path.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    return json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["mixskd"])


def nan_weight(tensors: dict[str, torch.Tensor]) -> None:
    tensors["fc.weight"][0, 0] = torch.nan


def wrong_type(tensors: dict[str, torch.Tensor]) -> None:
    tensors["fc.weight"] = tensors["fc.weight"].long()


def wrong_shape(tensors: dict[str, torch.Tensor]) -> None:
    tensors["fc.weight"] = tensors["fc.weight"][:2].clone()


WEIGHTS: list[tuple[str, Callable[[dict], object], str]] = [
    ("NaN in the weights", nan_weight, "are not finite"),
    ("infinity in the weights", lambda t: t["fc.bias"].fill_(torch.inf), "are not finite"),
    ("no classifier", lambda t: t.pop("fc.weight"), "its weights do not fit"),
    ("one weight more", lambda t: t.update(more=torch.zeros(1)), "its weights do not fit"),
    ("one weight short", wrong_shape, "its weights do not fit"),
    ("weights as integers", wrong_type, "its weights do not fit"),
]


def picture(kind: str = "PNG", size: tuple[int, int] = (16, 12), **options: Any) -> bytes:
    """The bytes of an image file."""
    content = io.BytesIO()
    Image.new("RGB", size, (200, 100, 50)).save(content, kind, **options)
    return content.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims to be so large, and holds next to nothing."""
    whole = bytearray(picture())
    whole[16:24] = struct.pack(">II", width, height)
    whole[29:33] = struct.pack(">I", zlib.crc32(whole[12:29]))
    return bytes(whole)


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n(/tmp/executed) (w) file closefile showpage\n"

Image.init()
IMAGES: list[tuple[str, str, bytes, str]] = [
    ("nothing", "a.jpg", b"", "cannot read the image"),
    ("text", "a.jpg", b"no image", "cannot read the image"),
    ("zeros", "a.png", bytes(1000), "cannot read the image"),
    ("EPS as .jpg", "a.jpg", EPS, "cannot read the image"),
    ("EPS as .png", "a.png", EPS, "cannot read the image"),
    ("half a PNG", "a.png", picture()[:45], "cannot read the image"),
    ("half a JPEG", "a.jpg", picture("JPEG")[:200], "cannot read the image"),
    ("half a GIF", "a.gif", picture("GIF")[:20], "cannot read the image"),
    ("half a WebP", "a.webp", picture("WEBP")[:30], "cannot read the image"),
    ("half a TIFF", "a.tif", picture("TIFF")[:100], "cannot read the image"),
    ("half a BMP", "a.bmp", picture("BMP")[:100], "cannot read the image"),
    ("half a PPM", "a.ppm", picture("PPM")[:50], "cannot read the image"),
    *(
        (f"{kind} as .jpg", "a.jpg", picture(kind), "cannot read the image")
        for kind in ("AVIF", "DDS", "ICO", "PCX", "SGI", "TGA", "JPEG2000")
        if kind in Image.SAVE
    ),
    ("20,000 x 20,000", "a.png", png_header(20_000, 20_000), "cannot read the image"),
    ("2 ** 31 - 1 wide", "a.png", png_header(2**31 - 1, 1), "cannot read the image"),
    ("0 wide", "a.png", png_header(0, 10), "cannot read the image"),
    ("60,000 x 1", "a.png", png_header(60_000, 1), "sides up to 100:1"),
    ("1 x 60,000", "a.png", png_header(1, 60_000), "sides up to 100:1"),
    ("14,000 x 14,000", "a.png", png_header(14_000, 14_000), "cannot read the image"),
]  # fmt: skip

GRIDS: list[tuple[str, dict[str, Any], str]] = [
    ("an unknown key", {"methodz": ["mixup"]}, "unknown key 'methodz'"),
    ("a number for the methods", {"methods": 3}, "methods must be"),
    ("a number among the methods", {"methods": [3.5]}, "cannot read the method '3.5'"),
    ("a method in brackets", {"methods": ["mixup["]}, "cannot read the method"),
    ("an option without value", {"methods": ["mixup[alpha]"]}, "write option=value"),
    ("options as a list", {"methods": {"a": [1]}}, "must hold options"),
    ("a method twice", {"methods": ["mixup", "mixup"]}, "names 'mixup' twice"),
    ("no method", {"methods": [","]}, "cannot read the method"),
    ("seeds as text", {"seeds": "a,b"}, "seeds must be a list of whole numbers"),
    ("no seed", {"seeds": []}, "the grid has no seeds"),
    ("a seed twice", {"seeds": [1, 1]}, "names 1 twice"),
    ("a huge seed", {"seeds": [2**64]}, "seeds must be at most"),
    ("seeds as a mapping", {"seeds": {"a": 1}}, "seeds must be a list"),
    ("seeds beyond numbers", {"seeds": [float("inf")]}, "seeds must be a list of whole numbers"),
    ("backbones as a number", {"backbones": 3}, "backbones must be a list of names"),
    ("backbones as a mapping", {"backbones": {"a": 1}}, "backbones must be a list of names"),
    ("augments as a number", {"augments": 1.5}, "augments must be a list of names"),
    ("an unknown reference", {"methods": ["mixup"], "equal_updates": "cutmix"}, "is not one of the methods"),
    ("an unknown arm of equal cost", {"methods": ["mixup"], "equal_cost": "cutmix"}, "is not one of the methods"),
    ("images below 1", {"images_per_update": 0}, "must be 1 or more"),
    ("images as text", {"images_per_update": "many"}, "images_per_update must be a whole number"),
    ("a recipe that is not there", {"recipe": "digit"}, "did you mean 'digits'"),
    ("a recipe that climbs", {"recipe": "../../etc/passwd"}, "recipe"),
    ("settings as a list", {"run": [1]}, "run"),
    ("data as a number", {"data": 3}, "data must be text or hold keys"),
]


# What stands in a command line of ``mixskd predict MODEL`` or another verb of a model file, in an empty folder with an
# image a.png, a table a.csv and a folder of nothing.
USES: list[tuple[str, list[str], str]] = [
    ("no image", ["predict", "M", "none.png"], "no image at none.png"),
    ("an empty folder", ["predict", "M", "nothing"], "the folder nothing holds no image"),
    ("a pattern that fits nothing", ["predict", "M", "*.webp"], "no image fits the pattern *.webp"),
    ("a table as an image", ["predict", "M", "a.csv"], "cannot read the image a.csv"),
    ("a table that is there", ["predict", "M", "a.png", "--out", "a.csv"], "a.csv exists already"),
    ("a folder as a table", ["predict", "M", "a.png", "--out", "d.csv", "--overwrite"], "it is a folder"),
    ("a table of no known kind", ["predict", "M", "a.png", "--out", "a.xlsx"], "ends in .csv or .jsonl"),
    ("a table without suffix", ["predict", "M", "a.png", "--out", "table"], "ends in .csv or .jsonl"),
    ("a threshold above 1", ["predict", "M", "a.png", "--threshold", "50"], "a probability from 0 to 1"),
    ("a threshold of NaN", ["predict", "M", "a.png", "--threshold", "nan"], "a probability from 0 to 1"),
    ("a threshold as text", ["predict", "M", "a.png", "--threshold", "high"], "invalid float value"),
    ("a temperature of 0", ["predict", "M", "a.png", "--temperature", "0"], "temperature must be above 0"),
    ("an infinite temperature", ["predict", "M", "a.png", "--temperature", "inf"], "temperature must be above 0"),
    ("half a batch", ["predict", "M", "a.png", "--batch-size", "0.5"], "invalid int value"),
    ("a batch of none", ["predict", "M", "a.png", "--batch-size", "0"], "batch_size must be above 0"),
    ("workers below 0", ["predict", "M", "a.png", "--workers", "-1"], "workers must be from 0"),
    ("many workers", ["predict", "M", "a.png", "--workers", HUGE], "workers must be from 0"),
    ("a device that is none", ["predict", "M", "a.png", "--device", "tpu:9"], "device"),
    ("calibration without data", ["calibrate", "M"], "name some with --data"),
    ("calibration on nothing", ["calibrate", "M", "--data", "no/where"], "there is no data at"),
    ("a target as a share", ["calibrate", "M", "--target-accuracy", "0.95"], "is in per cent"),
    ("a coverage above all", ["calibrate", "M", "--coverage", "120"], "is in per cent"),
    ("two goals", ["calibrate", "M", "--coverage", "90", "--target-accuracy", "90"], "not allowed with"),
    ("a push to nowhere", ["push", "M"], "name the place to push to"),
    ("a push to a path", ["push", "M", "../../x"], "is not the name of a repository"),
    ("a push of nothing", ["push", "none", "--to-folder", "d"], "no model at"),
]


def use(folder: Path, argv: list[str]) -> int:
    """The exit code of ``argv`` in ``folder``, where M is a model file."""
    model(folder)
    put(folder, "a.png", picture())
    put(folder, "a.csv", b"image,class\n")
    (folder / "nothing").mkdir()
    (folder / "d.csv").mkdir()
    return main(["model.safetensors" if word == "M" else word for word in argv])


def put(folder: Path, name: str, content: bytes) -> Path:
    """A file of that content."""
    path = folder / name
    path.write_bytes(content)
    return path


def pipe(folder: Path) -> Path:
    """A pipe that nobody writes to, named as an image."""
    os.mkfifo(folder / "pipe.jpg")
    return folder / "pipe.jpg"


def npz(folder: Path, **change: Any) -> Path:
    """An ``.npz`` file with changes; None leaves an array out."""
    arrays: dict[str, Any] = {
        "train_images": np.zeros((6, 4, 4, 3), np.uint8), "train_labels": np.arange(6) % 3,
        "test_images": np.zeros((3, 4, 4, 3), np.uint8), "test_labels": np.arange(3),
    }  # fmt: skip
    arrays |= change
    np.savez(folder / "a.npz", **{key: value for key, value in arrays.items() if value is not None})
    return folder / "a.npz"


ARRAYS: list[tuple[str, dict[str, Any], str]] = [
    ("an object array", {"train_labels": np.array([{}] * 6, dtype=object)}, "cannot read"),
    ("objects as classes", {"classes": np.array([{"a": 1}, None], dtype=object)}, "cannot read"),
    ("a label of 2 ** 40", {"train_labels": np.array([0, 1, 2, 0, 1, 2**40])}, "there may be up to 1,000,000 classes"),
    ("a label of 2 ** 63", {"train_labels": np.full(6, 2**63, np.uint64)}, "there may be up to 1,000,000 classes"),
    ("a label below 0", {"test_labels": np.array([0, -1, 2])}, "labels must be 0 or above"),
    ("labels as dates", {"train_labels": np.zeros(6, "datetime64[s]")}, "must be N integers"),
    ("labels as text", {"train_labels": np.array(list("abcabc"))}, "must be N integers"),
    ("labels as records", {"train_labels": np.zeros(6, [("a", "i4")])}, "must be N integers"),
    ("a number as labels", {"train_labels": np.array(3)}, "must be N integers"),
    ("a number as images", {"train_images": np.array(3, np.uint8)}, "it must be numbers, N x H x W"),
    ("images as floats", {"train_images": np.zeros((6, 4, 4, 3))}, "must be uint8"),
    ("images of no pixel", {k: np.zeros((n, 0, 0, 3), np.uint8) for k, n in (("train_images", 6), ("test_images", 3))},
     "images of 0 px cannot be used"),
    ("oblong images", {k: np.zeros((n, 4, 5, 3), np.uint8) for k, n in (("train_images", 6), ("test_images", 3))},
     "square ones are needed"),
    ("images of two sizes", {"test_images": np.zeros((3, 5, 5, 3), np.uint8)}, "differ in size"),
    ("a class without name", {"classes": np.array(["a", "", "c"])}, "classes[1] must be text of length"),
    ("a class of 5,000 characters", {"classes": np.array(["a", "b" * 5000, "c"])}, "classes[1] must be text of length"),
    ("no array of images", {"train_images": None}, "no train_images"),
    ("no array of labels", {"train_labels": None}, "no train_labels"),
    ("no image", {"train_images": np.zeros((0, 4, 4), np.uint8), "train_labels": np.zeros(0, int)}, "is empty"),
    ("images of 2 channels", {"train_images": np.zeros((6, 4, 4, 2), np.uint8)}, "have 2 channels, not 3"),
    ("five labels", {"train_labels": np.zeros(5, int)}, "6 train_images but 5"),
    ("a label beyond the classes", {"train_labels": np.arange(6) % 4, "classes": np.array(list("abc"))}, "from 0 to 3"),
    ("labels as fractions", {"train_labels": np.zeros(6)}, "must be N integers"),
    ("a class without image", {"train_labels": np.arange(6) % 2}, "test labels run from 0 to 2"),
    ("one class", {"classes": np.array(["a"]), "train_labels": np.zeros(6, int)}, "one class only"),
    ("a name in place of a list", {"classes": np.array("cat")}, "one class only"),
]  # fmt: skip

PATTERNS: list[tuple[str, str, str]] = [
    ("of 10 ** 11 files", "train-{0..99999999999}.tar", "more than 100,000 shards"),
    ("of 10 ** 5 files twice", "{0..99999}-{0..99999}.tar", "more than 100,000 shards"),
    ("of 5,000 digits", f"train-{{0..{'9' * 5000}}}.tar"[:3000] + "}.tar", "more than 100,000 shards"),
    ("of many parts", "::".join(["{0..99999}.tar"] * 3), "more than 100,000 shards"),
]

SHARDS: list[tuple[str, dict[str, bytes], str]] = [
    ("without label", {"a.png": b"x"}, "has no label"),
    ("with text as label", {"a.png": b"x", "a.cls": b"cat"}, "cannot read the shard"),
    ("with a label below 0", {"a.png": b"x", "a.cls": b"-1"}, "a label must be a whole number from 0 to 999999"),
    ("with a label of 2 ** 40", {"a.png": b"x", "a.cls": b"1099511627776"}, "a label must be a whole number"),
    ("with a label of 5,000 digits", {"a.png": b"x", "a.cls": b"9" * 5000}, "cannot read the shard"),
    ("with a label of 2 MB", {"a.png": b"x", "a.cls": b" " * 2_000_000 + b"1"}, "has 2,000,001 bytes"),
    ("with no JSON", {"a.png": b"x", "a.json": b"{"}, "cannot read the shard"),
    ("with deep JSON", {"a.png": b"x", "a.json": b"[" * 100_000}, "cannot read the shard"),
    ("with JSON of a list", {"a.png": b"x", "a.json": b"[1]"}, "a .json file without label"),
    ("with JSON of a number", {"a.png": b"x", "a.json": b"1"}, "a .json file without label"),
    ("with JSON without label", {"a.png": b"x", "a.json": b"{}"}, "a .json file without label"),
    ("with half a label", {"a.png": b"x", "a.json": b'{"label": 1.5}'}, "a label must be a whole number"),
    ("with no label in it", {"a.png": b"x", "a.json": b'{"label": null}'}, "a label must be a whole number"),
    ("with NaN as label", {"a.png": b"x", "a.json": b'{"label": NaN}'}, "a label must be a whole number"),
    ("with truth as label", {"a.png": b"x", "a.json": b'{"label": true}'}, "a label must be a whole number"),
    ("with a list as label", {"a.png": b"x", "a.json": b'{"label": [1]}'}, "a label must be a whole number"),
    ("without image", {"a.cls": b"1"}, "there is no image"),
]

MANIFESTS: list[tuple[str, bytes, str]] = [
    ("empty", b"", "has no column 'path'"),
    ("without label", b"path\na.png\n", "has no column 'label'"),
    ("not UTF-8", b"path,label\n\xff,1\n", "cannot read the manifest"),
    ("that climbs", b"path,label\n../../etc/passwd,1\n", "is outside the folder"),
    ("of an absolute path", b"path,label\n/etc/passwd,1\n", "is outside the folder"),
    ("with a null", b"path,label\na\x00.png,1\n", "cannot"),
    ("with a name of 300", b"path,label\n" + b"x" * 300 + b".png,1\n", "cannot"),
    ("with a field too large", b"path,label\n" + b"x" * 200_000 + b",1\n", "cannot read the manifest"),
    ("with a field too many", b"path\na.png,1,2\n", "has no column 'label'"),
    ("of what is no image", b"path,label\nm.csv,1\n", "is not an image file"),
    ("of nothing", b"path,label\n,1\n", "is outside the folder"),
]


# What stands in a command line of ``mixskd export MODEL``, in a folder that holds ``there.pth``.
EXPORTS: list[tuple[list[str], str]] = [
    ([], "name a format with --to, or a file with --out"),
    (["--out", "w.bin"], "w.bin does not say what to write; end it in .pth, .pt, .safetensors, .onnx, .pt2"),
    (["--out", "w"], "w does not say what to write"),
    (["--out", "w\x1b[2J"], "does not say what to write"),
    (["--to", "onnx", "--out", "w.pth"], "--to onnx writes .onnx, not w.pth"),
    (["--to", "torchvision", "--out", "w.onnx"], "--to torchvision writes .safetensors or .pth or .pt, not w.onnx"),
    (["--to", "safetensors", "--out", "w.pth"], "--to safetensors writes .safetensors, not w.pth"),
    (["--to", "detectron2", "--out", "w.pkl"], "--to detectron2 writes .pth, not w.pkl"),
    (["--to", "tflite"], "invalid choice"),
    (["--out", "there.pth"], "there.pth exists already; --overwrite replaces it"),
    (["--out", "model.safetensors", "--overwrite"], "model.safetensors is the model that is exported"),
    (["--out", "there.pth/w.onnx"], "cannot write there.pth/w.onnx"),
    (["--to", "torchvision"], "torchvision has no wrn_10_1"),
    (["--to", "timm"], "timm has no wrn_10_1"),
    (["--out", "w.pth", "--softmax"], "--softmax is for graphs"),
    (["--out", "w.pth", "--dynamic-size"], "--dynamic-size is for graphs"),
    (["--to", "timm", "--input", "uint8"], "--input is for graphs"),
    (["--out", "w.pt2", "--dtype", "int8"], "--dtype int8 is for --to onnx"),
    (["--out", "w.onnx", "--dtype", "int4"], "invalid choice"),
    (["--out", "w.onnx", "--dtype", "int8"], "int8 needs training images for the ranges of its numbers"),
    (["--out", "w.onnx", "--temperature", "2"], "add --softmax"),
    *(
        (["--out", "w.onnx", "--softmax", "--temperature", value], "temperature must be")
        for value in ("hot", "", "0", "-1", "nan", "inf")
    ),
    (["--out", "w.onnx", "--softmax", "--temperature", "stored"], "the model file holds no temperature"),
    (["--out", "w.pth", "--data", "no/where"], "there is no data at no/where"),
]


def exportable(folder: Path, backbone: str = "wrn_10_1") -> str:
    """A model file beside a file that exists already."""
    put(folder, "there.pth", b"mine")
    if backbone == "wrn_10_1":
        return str(model(folder).relative_to(folder))
    path = folder / "model.safetensors"
    save_model(
        build_backbone(backbone, 3, 32), path, backbone_name=backbone, classes=["a", "b", "c"], image_size=32,
        mean=(0.5,) * 3, std=(0.5,) * 3,
    )  # fmt: skip
    return path.name


# How a package that is installed may fail when it is imported.
BROKEN: list[tuple[str, str]] = [
    ("ImportError", "DLL load failed"),
    ("OSError", "libonnxruntime.so: cannot open shared object file"),
    ("AttributeError", "module 'numpy' has no attribute 'float'"),
    ("RuntimeError", "module compiled against API version 0x10"),
    ("SystemError", "initialization failed"),
]


@contextlib.contextmanager
def broken(package: str, folder: Path, error: str, message: str) -> Iterator[None]:
    """Where ``package`` fails with ``error`` when it is imported."""
    put(folder, f"{package}.py", f"raise {error}({message!r})".encode())
    loaded = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == package}
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop(package, None)
        sys.modules.update(loaded)


def export_where_broken(folder: Path, package: str, error: str, message: str) -> int:
    """``mixskd export`` to ONNX there."""
    from mixskd.cli.main import main

    with broken(package, folder, error, message):
        return main(["export", exportable(folder), "--to", "onnx"])


def shard(folder: Path, members: dict[str, bytes]) -> Path:
    """A tar file of these members."""
    with tarfile.open(folder / "train-0.tar", "w") as packed:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            packed.addfile(info, io.BytesIO(content))
    return folder / "train-0.tar"
