"""The whole way of a full-scale preset with small networks of the same classes, real files and real commands."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import adanat_rl
from adanat_rl.config.errors import UserError
from adanat_rl.config.files import read_json_lines
from benchmarks.full_scale import FEW, data_settings, earlier_results, in_order, trial
from benchmarks.trial_inputs import SMALL_IMAGE_SIZE
from tests import tiny
from tests.tiny_clip import write_tiny_clip
from tests.tiny_dinov2 import write_tiny_dinov2

DAMAGED = "damaged.JPEG"
CAPTIONS = ("a red barn", "two dogs", "the sea at night", "a plate of soup", "")
SMALL = (
    *FEW,
    *tiny.IN_PROCESS,
    "policy.hidden_size=16",
    "reward.adversarial.batch_size=8",
    "reward.adversarial.micro_batch_size=8",
)


def jpeg(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 30 + seed, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Photos of three of 1,000 classes, one of them damaged, and a table of captions with photos."""
    root = tmp_path_factory.mktemp("data")
    names = {f"n{number:08d}": f"class {number}" for number in range(1000)}
    (root / "class_names.json").write_text(json.dumps(names))
    for number, folder in enumerate(("n00000000", "n00000007", "n00000999")):
        (root / "train" / folder).mkdir(parents=True)
        for item in range(2):
            (root / "train" / folder / f"{item}.JPEG").write_bytes(jpeg(2 * number + item))
    (root / "train" / "n00000007" / DAMAGED).write_bytes(b"no photo")
    rows = [
        f"train\t{index}\t{caption}\t{base64.b64encode(jpeg(index)).decode()}\n"
        for index, caption in enumerate(CAPTIONS[:4])
    ]
    (root / "train.tsv").write_text("".join(rows))
    (root / "photos").mkdir()
    photos = [{"id": number, "file_name": f"{number}.jpg"} for number in range(4)]
    for photo in photos:
        (root / "photos" / photo["file_name"]).write_bytes(jpeg(photo["id"]))
    texts = [{"id": 9 - row, "image_id": row % 4, "caption": CAPTIONS[row % 4]} for row in range(8)]
    (root / "captions.json").write_text(json.dumps({"images": photos, "annotations": texts}))
    return {"images": root / "train", "class_names": root / "class_names.json", "captions": root / "train.tsv"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all presets find weights, prepare and train."""
    return tmp_path_factory.mktemp("work")


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["imagenet256", "adagen_maskgit", "cc3m", "amused256"])
def test_a_preset_is_prepared_trained_resumed_and_reported(files: dict[str, Path], root: Path, preset: str) -> None:
    if preset == "amused256":  # its images have one size; statistics are those of the test before
        own = ("data.statistics=weights/statistics/cc3m.npz", "evaluation.resize=vendored")
        photos = files["images"].parent / "photos"
        coco = ("data.name=coco", f"data.path={photos}", f"data.captions={photos.parent / 'captions.json'}")
    else:
        own = (f"data.image_size={SMALL_IMAGE_SIZE}",)
        if preset == "imagenet256":
            networks = (write_tiny_dinov2(root / "dinov2"), write_tiny_clip(root / "clip"))
            own += tuple(f"evaluation.{folder.name}={folder}" for folder in networks)
        if preset == "cc3m":  # the table stands for one of other captions
            own += ("evaluation.captions=weights/captions/cc3m", "generator.precision=bfloat16")
    settings = [*SMALL, *own, *data_settings(preset, **files), *(coco if preset == "amused256" else ())]
    times = trial(preset, settings, root, small=True, resume=False)
    assert times["iterations"] == [0, 1]
    horizon = {"imagenet256": 4, "adagen_maskgit": 16, "cc3m": 8, "amused256": 12}[preset]
    has_classes = preset in {"imagenet256", "adagen_maskgit"}
    expected = 2 * horizon - 2 if has_classes else 2 * horizon - 1
    assert times["rollout/nat_passes_per_image"] == expected
    run = root / "runs" / preset
    if preset in {"imagenet256", "cc3m"}:
        result = resumed(root, preset, run, settings)
    if preset == "imagenet256":
        check_damage(run, result)
    comparison = json.loads((run / "evaluation.json").read_text())
    assert comparison["judge"]["short_a"] == "FID"
    summary = comparison["rows"][0]["summary"]
    assert {"fd_a", "inception_score", "precision", "recall"} <= summary.keys()
    assert "fd_b" not in summary
    if preset == "imagenet256":
        assert {"fd_dinov2", "cmmd_clip"} <= summary.keys()
        judging = {value["key"] for value in comparison["panel"]["values"]}
        assert {"fd_a", "fd_dinov2", "cmmd_clip"} <= judging
    assert (run / "report.html").stat().st_size > 50_000
    if preset == "cc3m":
        with np.load(run / "samples" / "decisions.npz") as decided:
            assert decided["context"].tolist() == [5, 6, 7, 8], "rows behind the four of training and the null one"
        check_prompts(root, run)


def resumed(root: Path, preset: str, run: Path, settings: list[str]) -> str:
    """What the run prints when it goes on for an iteration."""
    more = ["training.num_iterations=2", "--run-dir", str(run)]
    result = tiny.run("train", "--preset", preset, *settings, *more, cwd=root)
    assert result.returncode == 0, result.stderr
    rows = read_json_lines(run / "metrics.jsonl")
    assert [row["iteration"] for row in rows] == [0, 1, 2]
    return result.stdout


def check_damage(run: Path, printed: str) -> None:
    """The damaged photo is named, and counted from the beginning on."""
    (line,) = (line for line in printed.splitlines() if line.startswith("warning"))
    assert line.startswith("warning: damaged image, another was taken in its place: ")
    assert DAMAGED in line
    rows = read_json_lines(run / "metrics.jsonl")
    assert [row["reward_model/damaged_images"] for row in rows] == [1, 1, 1]


def check_prompts(root: Path, run: Path) -> None:
    """The exported policy draws prompts of one's own."""
    prompts = root / "prompts.txt"
    prompts.write_text("a lighthouse\n\na cat on a mat\n")
    settings = ["resources.num_gpus_per_driver=0", f"--policy={run}", f"--prompts={prompts}", "--per-context=2"]
    result = tiny.run("sample", "--preset", "cc3m", *settings, "--output", "drawn.npz", cwd=root)
    assert result.returncode == 0, result.stderr
    with np.load(root / "drawn.npz") as drawn:
        assert drawn["images"].shape == (4, SMALL_IMAGE_SIZE, SMALL_IMAGE_SIZE, 3)
        assert list(drawn["context"]) == [0, 0, 1, 1]
        assert not np.array_equal(drawn["tokens"][0], drawn["tokens"][2])
    wrong = tiny.run("sample", "--preset", "cc3m", f"--policy={run}", "--prompts=nothing.txt", cwd=root)
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("adanat-rl sample: --prompts: nothing.txt: No such file")


def test_captions_for_a_generator_of_classes_are_refused() -> None:
    with pytest.raises(UserError, match=r"prompts: the generator of .* draws class labels and takes no captions"):
        adanat_rl.load_pipeline(prompts=["a cat"])


def test_numbers_of_presets_that_are_not_named_are_kept(tmp_path: Path) -> None:
    assert earlier_results(tmp_path) == {}
    content = {"measured_on": "2026-01-02", "settings": [*FEW, "seed=1"], "presets": {"coco": {"train_s": 3.0}}}
    (tmp_path / "full_scale.json").write_text(json.dumps(content))
    kept = earlier_results(tmp_path)
    assert kept == {"coco": {"measured_on": "2026-01-02", "settings": ["seed=1"], "train_s": 3.0}}
    new = {"measured_on": "2026-03-04", "settings": [], "train_s": 5.0}
    joined = in_order({**kept, "imagenet256": new})
    assert list(joined) == ["imagenet256", "coco"]
    later = {"measured_on": "2026-03-04", "settings": list(FEW), "presets": joined}
    (tmp_path / "full_scale.json").write_text(json.dumps(later))
    assert earlier_results(tmp_path) == joined, "each preset keeps its own date and settings"
