"""Small image files and data sets that the tests make for themselves."""

from __future__ import annotations

import base64
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image


def pixels(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    """A smooth picture with some noise, uint8 `[H, W, C]` (`[H, W]` for one channel)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(float)
    waves = [128 + 90 * np.sin(x / (3 + c) + seed) * np.cos(y / (5 + c)) for c in range(channels)]
    picture = np.clip(np.stack(waves, -1) + rng.normal(0, 12, (height, width, channels)), 0, 255).astype(np.uint8)
    return picture[..., 0] if channels == 1 else picture


def encode(image: np.ndarray | Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """The bytes of an image file."""
    buffer = io.BytesIO()
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def png(seed: int, size: int = 12) -> bytes:
    """A PNG that differs from those of other seeds."""
    return encode(pixels(size, size + 2, seed=seed))


def write_tree(root: Path, classes: Mapping[str, int], size: int = 12) -> Path:
    """Class folders with so many images each."""
    seed = 0
    for name, count in classes.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            (root / name / f"{number}.png").write_bytes(png(seed, size))
            seed += 1
    return root


def write_tar(path: Path, members: Mapping[str, bytes]) -> Path:
    """A plain archive with these members, in order."""
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def write_cc3m(path: Path, captions: list[str]) -> Path:
    """A training table; line i holds `png(i)`."""
    lines = [
        f"{number:09d}.jpg\t{number}\t{caption}\t{base64.b64encode(png(number)).decode()}\n"
        for number, caption in enumerate(captions)
    ]
    path.write_text("".join(lines), encoding="utf-8")
    return path


def write_coco(folder: Path) -> tuple[Path, Path]:
    """Images 5 and 9 with captions, image 7 without; annotations out of order."""
    (folder / "images").mkdir(parents=True)
    for number in (5, 7, 9):
        (folder / "images" / f"{number:012d}.png").write_bytes(png(number))
    annotations = [(30, 9, "nine c "), (10, 9, "nine a"), (40, 5, "five"), (20, 9, "nine b")]
    content = {
        "images": [{"id": number, "file_name": f"{number:012d}.png"} for number in (9, 7, 5)],
        "annotations": [{"id": row, "image_id": image, "caption": text} for row, image, text in annotations],
    }
    (folder / "captions.json").write_text(json.dumps(content))
    return folder / "images", folder / "captions.json"
