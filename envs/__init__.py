"""The choice of a generation policy as a Gymnasium MDP around a generator."""

from envs.single_env import GenerationEnv
from envs.vector_env import GenerationVectorEnv

__all__ = ["GenerationEnv", "GenerationVectorEnv"]
