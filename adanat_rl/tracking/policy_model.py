"""The code of the MLflow model ("models from code"): MLflow runs this file when the model is loaded."""

from __future__ import annotations

from typing import Any

import mlflow
import numpy as np
import pandas as pd


class PolicyModel(mlflow.pyfunc.PythonModel):
    """`predict(DataFrame with context and seed)` → images uint8 `[B, H, W, C]`."""

    def load_context(self, context: Any) -> None:
        """Loads the policy folder among the artifacts."""
        from adanat_rl.generation.pipeline import load_pipeline

        self._pipeline = load_pipeline(context.artifacts["policy"])

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> np.ndarray:
        """One image per row."""
        return self._pipeline(model_input["context"].to_numpy(), model_input["seed"].to_numpy()).images


mlflow.models.set_model(PolicyModel())
