"""Environments and pipelines in forked worker processes, after the parent has run torch on several threads.

Each case is a process of its own: what OpenMP remembers of threads cannot be taken back.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

DEADLINE_S = 180  # a process that hangs does so for ever

TORCH_ON_THREADS = """
import os
import numpy as np
import torch

torch.set_num_threads(2)
torch.randn(600, 600) @ torch.randn(600, 600)
NAME = "adanat_rl:AdaNAT/Digits-v0"

def make():
    import gymnasium
    return gymnasium.make(NAME, observation_mode="features")
"""
ASYNC_VECTOR = """
import gymnasium
environments = gymnasium.make_vec(NAME, num_envs=2, vectorization_mode="async", observation_mode="features")
environments.reset(seed=0)
for _ in range(4):
    _, rewards, *_ = environments.step(np.zeros((2, 4), np.float32))
print((rewards > 0).all(), torch.get_num_threads())
environments.close()
"""
PARENT_KNOWS_TORCH_ALONE = """
import multiprocessing, sys
from stable_baselines3.common.vec_env import SubprocVecEnv
environments = SubprocVecEnv([make] * 2, start_method="fork")
environments.reset()
for _ in range(4):
    _, rewards, *_ = environments.step(np.zeros((2, 4), np.float32))
print((rewards > 0).all() and "adanat_rl" not in sys.modules, torch.get_num_threads())
environments.close()
"""
POOL_AND_LOADER = """
import multiprocessing
import adanat_rl
pipeline = adanat_rl.load_pipeline()
expected = pipeline([3] * 64)

def draw(label):
    output = pipeline([label] * 64)
    return np.array_equal(output.tokens, expected.tokens), torch.get_num_threads()

with multiprocessing.get_context("fork").Pool(1) as pool:
    drawn = pool.map(draw, [3, 3])

class Drawings(torch.utils.data.Dataset):
    def __len__(self):
        return 2
    def __getitem__(self, index):
        return draw(3)[0]

loaded = list(torch.utils.data.DataLoader(Drawings(), num_workers=1, multiprocessing_context="fork"))
grandchildren = []
if (child := os.fork()) == 0:
    if (grandchild := os.fork()) == 0:
        os._exit(0 if draw(3)[0] else 1)
    os._exit(os.waitpid(grandchild, 0)[1])
status = os.waitpid(child, 0)[1]
print(drawn == [(True, 1)] * 2 and all(loaded) and status == 0, torch.get_num_threads())
"""


@pytest.mark.parametrize(
    "case",
    [ASYNC_VECTOR, PARENT_KNOWS_TORCH_ALONE, POOL_AND_LOADER],
    ids=["make_vec", "the parent has not imported the package", "pool, loader and grandchildren"],
)
def test_a_forked_worker_answers_and_the_parent_keeps_its_threads(case: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    with subprocess.Popen(
        [sys.executable, "-c", TORCH_ON_THREADS + case],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, errors = process.communicate(timeout=DEADLINE_S)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, 9)
    assert process.returncode == 0, errors
    assert output.split() == ["True", "2"]


def test_a_process_that_was_not_forked_keeps_its_threads() -> None:
    code = "import torch\ntorch.set_num_threads(2)\nimport adanat_rl.envs\nprint(torch.get_num_threads())"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=DEADLINE_S)
    assert result.stdout.strip() == "2", result.stderr


def test_without_torch_a_fork_imports_nothing() -> None:
    code = (
        "import os, sys, adanat_rl\n"
        "child = os.fork()\n"
        "if child == 0: os._exit('torch' in sys.modules)\n"
        "print(os.waitpid(child, 0)[1])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=DEADLINE_S)
    assert result.stdout.strip() == "0", result.stderr
