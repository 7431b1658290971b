"""CamVid at half its size, train and test alone, for transfer_camvid.yaml; masks take the nearest pixel.

python benchmarks/halve_camvid.py camvid camvid_half
"""

import shutil
import sys
from pathlib import Path

from PIL import Image

source, target = map(Path, sys.argv[1:])
for split in ("train", "test"):
    for kind, filter_ in (("images", Image.Resampling.BILINEAR), ("masks", Image.Resampling.NEAREST)):
        folder = target / kind / split
        folder.mkdir(parents=True, exist_ok=True)
        for file in sorted((source / kind / split).iterdir()):
            with Image.open(file) as image:
                image.resize((image.width // 2, image.height // 2), filter_).save(folder / f"{file.stem}.png")
shutil.copy(source / "meta.json", target / "meta.json")
