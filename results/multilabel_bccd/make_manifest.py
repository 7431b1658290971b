"""Make a manifest of several labels an image from BCCD's boxes: each image as four quarters, with the cells in them.

    python make_manifest.py BCCD_FOLDER OUT_FOLDER

BCCD_FOLDER holds train, val and test with train.json, val.json and test.json (COCO's format). A quarter has the labels
of the boxes whose centre is in it. OUT_FOLDER gets the quarters and manifest.csv: path, split, labels (separated by
``;``).
"""

import csv
import json
import sys
from collections import defaultdict
from pathlib import Path

from PIL import Image

source, out = map(Path, sys.argv[1:])
out.mkdir(parents=True, exist_ok=True)
with (out / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["path", "split", "labels"])
    for split in ("train", "val", "test"):
        about = json.loads((source / f"{split}.json").read_text(encoding="utf-8"))
        names = {category["id"]: category["name"] for category in about["categories"]}
        boxes = defaultdict(list)
        for box in about["annotations"]:
            boxes[box["image_id"]].append(box)
        for image in about["images"]:
            opened = Image.open(source / split / image["file_name"])
            width, height = image["width"] // 2, image["height"] // 2
            for quarter in range(4):
                left, top = width * (quarter % 2), height * (quarter // 2)
                name = f"{split}_{Path(image['file_name']).stem}_{quarter}.png"
                opened.crop((left, top, left + width, top + height)).save(out / name)
                found = set()
                for box in boxes[image["id"]]:
                    x, y = box["bbox"][0] + box["bbox"][2] / 2, box["bbox"][1] + box["bbox"][3] / 2
                    if left <= x < left + width and top <= y < top + height:
                        found.add(names[box["category_id"]])
                writer.writerow([name, split, ";".join(sorted(found))])
