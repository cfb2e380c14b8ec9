"""The choice of a generation policy as a Gymnasium MDP around a generator.

The package is `adanat_rl.envs`; in the repository its files lie in `envs/` at the top, to which `adanat_rl/envs` is a
link. One name, so that a process holds each class once and that no `envs` of anybody else is ever meant.
"""

if __name__ != "adanat_rl.envs":
    raise ImportError(f"the environments are imported as adanat_rl.envs, not as {__name__}", name=__name__)

from adanat_rl.envs.single_env import GenerationEnv
from adanat_rl.envs.vector_env import GenerationVectorEnv

__all__ = ["GenerationEnv", "GenerationVectorEnv"]
