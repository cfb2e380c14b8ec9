"""The rollout table: one Parquet file per iteration, one row per trajectory, each used exactly once.

Columns: id, iteration, shard, row, seed, context, decisions (list of T·K), reward, further reward numbers
`reward_NAME`, advantages (list of T), reward_model_version, nat_passes.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from adanat_rl.config.files import write_atomically
from adanat_rl.rl.algorithm import Rollout

_NAME = re.compile(r"iteration_(\d{6,})\.parquet")


def table_path(folder: Path, iteration: int) -> Path:
    """Where the table of an iteration lies."""
    return folder / f"iteration_{iteration:06d}.parquet"


def rollout_table(rollout: Rollout) -> pa.Table:
    """The table of one iteration; its metadata holds the hash of the train batch."""
    shards, scores = rollout.shards, rollout.scores
    sizes = [shard.num_trajectories for shard in shards]
    columns = {
        "id": [name for shard in shards for name in shard.trajectory_ids],
        "iteration": np.repeat([shard.key.iteration for shard in shards], sizes),
        "shard": np.repeat([shard.key.number for shard in shards], sizes),
        "row": np.concatenate([np.arange(size) for size in sizes]),
        "seed": np.repeat([shard.key.seed for shard in shards], sizes),
        "context": np.concatenate([shard.context for shard in shards]),
        "decisions": _lists(np.concatenate([shard.decisions.reshape(len(shard.context), -1) for shard in shards])),
        "reward": np.concatenate([score.scores for score in scores]),
        "advantages": _lists(rollout.advantages),
        "reward_model_version": np.repeat([score.version for score in scores], sizes),
        "nat_passes": np.concatenate([shard.num_passes for shard in shards]),
    }
    for name in scores[0].info:
        columns[f"reward_{name}"] = np.concatenate([score.info[name] for score in scores])
    return pa.table(columns).replace_schema_metadata({"batch_hash": rollout.batch_hash})


def write_rollout_table(folder: Path, iteration: int, rollout: Rollout) -> str:
    """Writes the table of an iteration, atomically.

    Returns:
        SHA-256 of the file, in hex.
    """
    sink = pa.BufferOutputStream()
    pq.write_table(rollout_table(rollout), sink, compression="zstd")
    content = sink.getvalue().to_pybytes()
    write_atomically(table_path(folder, iteration), content)
    return hashlib.sha256(content).hexdigest()


def table_files(folder: Path) -> dict[int, Path]:
    """Tables by iteration; other names beside them are left alone."""
    found = {}
    for path in folder.glob("iteration_*.parquet"):
        match = _NAME.fullmatch(path.name)
        if match is not None and path.is_file():
            found[int(match[1])] = path
    return dict(sorted(found.items()))


def cut_after(folder: Path, iteration: int) -> None:
    """Deletes tables of later iterations: a resumed run writes them again."""
    for number, path in table_files(folder).items():
        if number > iteration:
            path.unlink()


def _lists(values: np.ndarray) -> pa.Array:
    """Rows `[N, M]` as an Arrow array of fixed-size lists."""
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
