"""The policy as an MLflow model: contexts and seeds in, images out, through `mlflow.pyfunc.load_model`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from adanat_rl.version import __version__

MODEL_NAME = "policy"
_POLICY_TAG = "adanat_rl.policy"
_TRACKING_URI = "MLFLOW_TRACKING_URI"  # which MLflow sets, too, when it is told a store


def log_policy_model(uri: str, run_id: str, policy: Path, digest: str) -> str:
    """Logs an exported policy folder as a model of a run; returns the model's URI.

    The model is code by name (`policy_model.py`) plus the policy's two files; nothing is pickled.

    Args:
        digest: of the policy's files; the model is found by it.
    """
    import mlflow
    import numpy as np
    import pandas as pd
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema, TensorSpec

    inputs = Schema([ColSpec("long", "context"), ColSpec("long", "seed")])
    outputs = Schema([TensorSpec(np.dtype(np.uint8), (-1, -1, -1, -1), "images")])
    before = os.environ.get(_TRACKING_URI)
    mlflow.set_tracking_uri(uri)
    try:
        with mlflow.start_run(run_id=run_id, log_system_metrics=False):
            info = mlflow.pyfunc.log_model(
                name=MODEL_NAME,
                python_model=str(Path(__file__).with_name("policy_model.py")),
                artifacts={"policy": str(policy)},
                signature=ModelSignature(inputs, outputs),
                input_example=pd.DataFrame({"context": [3, 7], "seed": [0, 1]}),
                pip_requirements=[f"adanat-rl=={__version__}"],
                tags={_POLICY_TAG: digest},
            )
    finally:
        mlflow.set_tracking_uri(before)  # None: as if nothing had been said
    return str(info.model_uri)


def find_policy_model(client: Any, experiment_id: str, run_id: str, digest: str) -> str | None:
    """URI of the model of a run that was logged from a policy; None if there is none, or not whole."""
    for model in client.search_logged_models([experiment_id], filter_string=f"source_run_id = '{run_id}'"):
        if model.tags.get(_POLICY_TAG) == digest and str(model.status) == "READY":
            return str(model.model_uri)
    return None
