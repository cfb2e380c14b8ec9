"""Makes the environments known to Gymnasium by name, without importing what they are made of.

Gymnasium 1.0 dropped its entry points: a package registers its environments when it is imported, so that
`gymnasium.make("adanat_rl:AdaNAT/Digits-v0")` works alone, and the plain name after `import adanat_rl`.
"""

from __future__ import annotations

from gymnasium.envs.registration import register, registry

PRESETS = {"AdaNAT/Digits-v0": "digits", "AdaNAT/Mnist-v0": "mnist"}


def register_environments() -> None:
    """Registers what is not registered yet."""
    for name, preset in PRESETS.items():
        if name not in registry:
            register(
                id=name,
                entry_point="adanat_rl.experiment.gymnasium_envs:make_env",
                vector_entry_point="adanat_rl.experiment.gymnasium_envs:make_vector_env",
                kwargs={"preset": preset},
            )
