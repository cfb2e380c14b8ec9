"""Reinforcement learning of generation policies for masked-token image generators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adanat_rl.forking import protect_forked_processes
from adanat_rl.registration import register_environments
from adanat_rl.version import __version__

if TYPE_CHECKING:
    from adanat_rl.generation.pipeline import GenerationPipeline, PipelineOutput, load_pipeline

__all__ = ["GenerationPipeline", "PipelineOutput", "__version__", "load_pipeline"]


def __getattr__(name: str) -> Any:
    """Loads the public names on first use, so that `import adanat_rl` does not import torch."""
    if name in {"GenerationPipeline", "PipelineOutput", "load_pipeline"}:
        from adanat_rl.generation import pipeline

        return getattr(pipeline, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


protect_forked_processes()
register_environments()
