"""The files of others that presets need: what each is, where it is published, its licence, and how it gets into place.

Facts are those of the publishers' own pages; nothing is downloaded here. `docs/weights.md` is made of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

WEIGHTS_FOLDER = "weights"
_NOT_PUBLISHED = "not published by the authors; train your own"
_NONE_STATED = "none stated"
_OWN_NAT = "the policy of AdaNAT and that of AdaGen each belong to the NAT that is published beside them"
_IMPORT = "adanat-rl import-checkpoint"


@dataclass(frozen=True)
class PublishedFile:
    """A file or folder that a preset names.

    Args:
        file: its place below the folder `weights`, as the presets have it; a folder ends in "/".
        what: what it is, in one phrase.
        published: repository or page, and the name of the file there.
        licence: as stated by the publisher.
        command: what makes it, typed where `weights` lies.
        kind: of the network in the file; None if it holds none of ours.
        arguments: of that network's constructor, so that sizes can be told without the file.
        note: what else one has to know.
    """

    file: str
    what: str
    published: str
    licence: str
    command: str
    kind: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""

    @property
    def path(self) -> str:
        """The place as the presets name it, relative to where commands are typed."""
        return f"{WEIGHTS_FOLDER}/{self.file}".rstrip("/")


def _import(source: str, file: str, options: str = "") -> str:
    return f"{_IMPORT} {source} --output {WEIGHTS_FOLDER}/{file}{options and ' '}{options}"


def _prepared(what: str, preset: str) -> str:
    """The command for what `prepare` makes, at the place that the preset names."""
    return f"adanat-rl prepare --{what} --preset {preset}"


def _download(repository: str, folder: str, files: str = "") -> str:
    return f"hf download {repository}{files and ' '}{files} --local-dir {WEIGHTS_FOLDER}/{folder}"


def _uvit(grid_size: int, width: int, depth: int, num_heads: int, **context: int) -> dict[str, Any]:
    return {
        "vocab_size": 1024,
        "grid_size": grid_size,
        "width": width,
        "depth": depth,
        "num_heads": num_heads,
        **context,
    }


CATALOGUE = (
    PublishedFile(
        "imagenet256/nat.safetensors",
        "the NAT of AdaNAT-L: ImageNet 256², class labels, 16×16 tokens",
        "github.com/LeapLabTHU/AdaNAT, README, on Google Drive",
        _NONE_STATED,
        _import("nnet_ema.pth", "imagenet256/nat.safetensors"),
        "uvit",
        _uvit(16, 768, 24, 8, num_classes=1000),
        note=_OWN_NAT,
    ),
    PublishedFile(
        "adagen_maskgit/nat.safetensors",
        "MaskGIT-L, the NAT of AdaGen: sizes as AdaNAT-L's, other weights",
        "huggingface.co/nzl-thu/MaskGIT-L",
        "MIT according to the README of github.com/LeapLabTHU/AdaGen",
        _import("nnet_ema.pth", "adagen_maskgit/nat.safetensors"),
        "uvit",
        _uvit(16, 768, 24, 8, num_classes=1000),
        note=_OWN_NAT,
    ),
    PublishedFile(
        "imagenet512/nat.safetensors",
        "a NAT for ImageNet 512², class labels, 32×32 tokens",
        _NOT_PUBLISHED,
        _NONE_STATED,
        _import("YOUR_NAT.pth", "imagenet512/nat.safetensors"),
        "uvit",
        _uvit(32, 768, 24, 8, num_classes=1000),
        note="its size is an assumption: that of AdaNAT-L",
    ),
    PublishedFile(
        "coco/nat.safetensors",
        "a NAT for MS-COCO 256², captions by CLIP ViT-L/14, 16×16 tokens",
        _NOT_PUBLISHED,
        _NONE_STATED,
        _import("YOUR_NAT.pth", "coco/nat.safetensors"),
        "uvit",
        _uvit(16, 768, 24, 8, text_width=768),
        note="its size is an assumption: that of AdaNAT-L, with the text features that the U-ViT family takes for COCO",
    ),
    PublishedFile(
        "cc3m/nat.safetensors",
        "the NAT of AdaNAT's text model: CC3M 256², captions by CLIP ViT-bigG-14, 16×16 tokens",
        "huggingface.co/nzl-thu/MUSE, assets/ckpts/cc3m-285000.ckpt/nnet_ema.pth",
        _NONE_STATED,
        _import("nnet_ema.pth", "cc3m/nat.safetensors"),
        "uvit",
        _uvit(16, 1152, 28, 16, text_width=1280),
    ),
    PublishedFile(
        "vqgan.safetensors",
        "the VQ tokenizer of MaskGIT as ported to PyTorch, for images of 256 pixels",
        "github.com/LTH14/mage, README, vqgan_jax_strongaug.ckpt on Google Drive",
        "MIT (github.com/LTH14/mage)",
        _import("vqgan_jax_strongaug.ckpt", "vqgan.safetensors"),
        "vqgan",
        {"vocab_size": 1024, "image_size": 256, "code_width": 256},
    ),
    PublishedFile(
        "vqgan-512.safetensors",
        "the same tokenizer for images of 512 pixels: its weights do not depend on the size",
        "github.com/LTH14/mage, README, vqgan_jax_strongaug.ckpt on Google Drive",
        "MIT (github.com/LTH14/mage)",
        _import("vqgan_jax_strongaug.ckpt", "vqgan-512.safetensors", "--image-size 512"),
        "vqgan",
        {"vocab_size": 1024, "image_size": 512, "code_width": 256},
        note="trained at 256 pixels; that it was used at 512 is not known",
    ),
    PublishedFile(
        "imagenet256/policy/",
        "AdaNAT's policy for ImageNet 256², T = 8, with its critic and discriminator",
        "github.com/LeapLabTHU/AdaNAT, README, on Google Drive",
        _NONE_STATED,
        _import("POLICY.pth", "imagenet256/policy", "--preset imagenet256"),
        note="needs NAT and tokenizer in place: their hashes go into the policy",
    ),
    PublishedFile(
        "cc3m/policy/",
        "AdaNAT's policy for CC3M, T = 8, with its critic and discriminator",
        "github.com/LeapLabTHU/AdaNAT, README, on Google Drive",
        _NONE_STATED,
        _import("POLICY.pth", "cc3m/policy", "--preset cc3m"),
        note="needs NAT and tokenizer in place: their hashes go into the policy",
    ),
    PublishedFile(
        "adagen_maskgit/policy/",
        "AdaGen's policy for MaskGIT-L, T = 16, smoothing 0.8; no critic",
        "huggingface.co/nzl-thu/AdaGen_Policies, maskgit_policy.pth",
        "MIT according to the README of github.com/LeapLabTHU/AdaGen",
        _import("maskgit_policy.pth", "adagen_maskgit/policy", "--preset adagen_maskgit"),
        note="needs NAT and tokenizer in place: their hashes go into the policy",
    ),
    PublishedFile(
        "dino_vits16.safetensors",
        "DINO ViT-S/16, the frozen part of the projected discriminator",
        "github.com/facebookresearch/dino, dino_deitsmall16_pretrain.pth (backbone only)",
        "Apache-2.0",
        _import("dino_deitsmall16_pretrain.pth", "dino_vits16.safetensors"),
        "dino_vit",
        {"patch_size": 16, "width": 384, "depth": 12, "num_heads": 6},
    ),
    PublishedFile(
        "inception.safetensors",
        "Inception-v3 of 2015, the network of FID",
        "github.com/mseitzer/pytorch-fid, release fid_weights, pt_inception-2015-12-05-6726825d.pth",
        "Apache-2.0",
        _import("pt_inception-2015-12-05-6726825d.pth", "inception.safetensors"),
        "inception",
    ),
    PublishedFile(
        "image_reward.safetensors",
        "ImageReward v1.0, a reward model of people's preferences",
        "huggingface.co/THUDM/ImageReward, ImageReward.pt",
        "Apache-2.0 (github.com/THUDM/ImageReward)",
        _import("ImageReward.pt", "image_reward.safetensors"),
        "image_reward",
        {"vision_width": 1024, "vision_depth": 24, "text_width": 768, "text_depth": 12},
    ),
    PublishedFile(
        "aesthetic_head.safetensors",
        "LAION's improved aesthetic predictor: ratings of CLIP ViT-L/14 embeddings (`reward.aesthetic.head`)",
        "github.com/christophschuhmann/improved-aesthetic-predictor, sac+logos+ava1-l14-linearMSE.pth",
        "Apache-2.0",
        _import("sac+logos+ava1-l14-linearMSE.pth", "aesthetic_head.safetensors"),
        "aesthetic_head",
        {"widths": [768, 1024, 128, 64, 16, 1]},
        note="its encoder is CLIP ViT-L/14 (`reward.aesthetic.encoder`)",
    ),
    PublishedFile(
        "bert-base-uncased/",
        "BERT's vocabulary, which ImageReward reads prompts with",
        "huggingface.co/google-bert/bert-base-uncased, vocab.txt",
        "Apache-2.0",
        _download("google-bert/bert-base-uncased", "bert-base-uncased", "vocab.txt"),
    ),
    PublishedFile(
        "clip-vit-bigg-14/",
        "CLIP ViT-bigG-14, the text encoder of CC3M",
        "huggingface.co/laion/CLIP-ViT-bigG-14-laion2B-39B-b160k",
        "MIT",
        _download("laion/CLIP-ViT-bigG-14-laion2B-39B-b160k", "clip-vit-bigg-14"),
        note="read with transformers, from safetensors",
    ),
    PublishedFile(
        "clip-vit-large-patch14/",
        "CLIP ViT-L/14, the text encoder of MS-COCO; also for CLIPScore, CMMD and the aesthetic reward",
        "huggingface.co/openai/clip-vit-large-patch14",
        f"MIT (github.com/openai/CLIP); on the page {_NONE_STATED}",
        _download("openai/clip-vit-large-patch14", "clip-vit-large-patch14"),
        note="read with transformers, from safetensors",
    ),
    PublishedFile(
        "dinov2-large/",
        "DINOv2 ViT-L/14, which judges photos (`evaluation.dinov2`)",
        "huggingface.co/facebook/dinov2-large",
        "Apache-2.0",
        _download("facebook/dinov2-large", "dinov2-large"),
        note="read with transformers, from safetensors",
    ),
    PublishedFile(
        "amused-256/",
        "aMUSEd 256² in diffusers' layout: NAT, tokenizer, text encoder",
        "huggingface.co/amused/amused-256",
        "OpenRAIL++",
        _download("amused/amused-256", "amused-256"),
    ),
    PublishedFile(
        "amused-512/",
        "aMUSEd 512² in diffusers' layout: NAT, tokenizer, text encoder",
        "huggingface.co/amused/amused-512",
        "OpenRAIL++",
        _download("amused/amused-512", "amused-512"),
    ),
    PublishedFile(
        "statistics/imagenet256.npz",
        "Fréchet statistics of ImageNet 256²",
        "huggingface.co/nzl-thu/MUSE, assets/fid_stats/fid_stats_imagenet256_guided_diffusion.npz",
        _NONE_STATED,
        _import(
            "fid_stats_imagenet256_guided_diffusion.npz", "statistics/imagenet256.npz", "--convention torch_fidelity"
        ),
        note="the file does not say its resize convention; its name says that it is guided-diffusion's, which takes "
        "features as TensorFlow does. The official code compares features of the convention vendored with it",
    ),
    PublishedFile(
        "statistics/imagenet512.npz",
        "Fréchet statistics of ImageNet 512²",
        "not published by the authors; take them from the images",
        _NONE_STATED,
        _prepared("statistics", "imagenet512"),
    ),
    PublishedFile(
        "statistics/coco.npz",
        "Fréchet statistics of MS-COCO",
        "not published by the authors; take them from the images",
        _NONE_STATED,
        _prepared("statistics", "coco"),
    ),
    PublishedFile(
        "statistics/cc3m.npz",
        "Fréchet statistics of the validation images of CC3M",
        "huggingface.co/nzl-thu/MUSE, assets/fid_stats/fid_stats_cc3m_val.npz",
        _NONE_STATED,
        _import("fid_stats_cc3m_val.npz", "statistics/cc3m.npz", "--convention vendored"),
        note="the file does not say its resize convention; vendored is that of the official code, and needs "
        "evaluation.resize=vendored",
    ),
    PublishedFile(
        "captions/coco/",
        "encoded captions of MS-COCO",
        "made here from your captions",
        "that of the captions",
        _prepared("captions", "coco"),
    ),
    PublishedFile(
        "captions/cc3m/",
        "encoded captions of CC3M",
        "made here from your captions",
        "that of the captions",
        _prepared("captions", "cc3m"),
    ),
    PublishedFile(
        "captions/coco-amused-256/",
        "captions of MS-COCO, encoded as aMUSEd 256² reads them",
        "made here from your captions",
        "that of the captions",
        _prepared("captions", "amused256"),
    ),
    PublishedFile(
        "captions/coco-amused-512/",
        "captions of MS-COCO, encoded as aMUSEd 512² reads them",
        "made here from your captions",
        "that of the captions",
        _prepared("captions", "amused512"),
    ),
)


def published_file(path: str) -> PublishedFile | None:
    """The entry that a path stands for: the one that shares most of its ending, None if that is not clear."""
    best, best_length, clear = None, 0, False
    for entry in CATALOGUE:
        length = _shared_length(path, entry)
        if length > best_length:
            best, best_length, clear = entry, length, True
        elif length == best_length:
            clear = False
    return best if clear else None


def _shared_length(path: str, entry: PublishedFile) -> int:
    """How many parts of an entry's place stand at the end of a path, or, for a folder, anywhere in it."""
    parts, wanted = PurePath(path).parts, PurePath(entry.file).parts
    if entry.file.endswith("/"):
        ends = [parts[: index + 1] for index in range(len(parts))]
        return len(wanted) if any(end[-len(wanted) :] == wanted for end in ends) else 0
    length = 0
    while length < min(len(parts), len(wanted)) and parts[-1 - length] == wanted[-1 - length]:
        length += 1
    return length


def describe_missing(path: str, key: str) -> str:
    """One line about a file that is not there: the setting, what the file is, where it is published, what makes it.

    Args:
        path: as the setting has it. key: of the setting, such as "generator.nat".
    """
    entry = published_file(path)
    missing = f"{key}: no such file: {path}"
    if entry is None:
        return f"{missing}; give a file that is there; `{_IMPORT} FILE --output {path}` makes one of a checkpoint"
    command = entry.command if entry.file.endswith("/") else entry.command.replace(entry.path, path)
    return f"{missing}: {entry.what}; published: {entry.published}; to get it: {command}"
