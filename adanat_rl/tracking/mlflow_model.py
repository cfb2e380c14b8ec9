"""The policy as an MLflow model: contexts and seeds in, images out, through `mlflow.pyfunc.load_model`."""

from __future__ import annotations

from pathlib import Path

from adanat_rl.version import __version__

MODEL_NAME = "policy"


def log_policy_model(uri: str, run_id: str, policy: Path) -> str:
    """Logs an exported policy folder as a model of a run; returns the model's URI.

    The model is code by name (`policy_model.py`) plus the policy's two files; nothing is pickled.
    """
    import mlflow
    import numpy as np
    import pandas as pd
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema, TensorSpec

    inputs = Schema([ColSpec("long", "context"), ColSpec("long", "seed")])
    outputs = Schema([TensorSpec(np.dtype(np.uint8), (-1, -1, -1, -1), "images")])
    mlflow.set_tracking_uri(uri)
    with mlflow.start_run(run_id=run_id, log_system_metrics=False):
        info = mlflow.pyfunc.log_model(
            name=MODEL_NAME,
            python_model=str(Path(__file__).with_name("policy_model.py")),
            artifacts={"policy": str(policy)},
            signature=ModelSignature(inputs, outputs),
            input_example=pd.DataFrame({"context": [3, 7], "seed": [0, 1]}),
            pip_requirements=[f"adanat-rl=={__version__}"],
        )
    return str(info.model_uri)
