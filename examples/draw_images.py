"""Draw images with a trained policy: three lines, without Ray and without MLflow."""

from __future__ import annotations

import adanat_rl

pipeline = adanat_rl.load_pipeline()  # the shipped policy; or "runs/digits", or an exported folder
output = pipeline(context=[3, 3, 7], seeds=[0, 1, 2])
print(output.images.shape, output.images.dtype, "decisions", output.decisions.shape)
