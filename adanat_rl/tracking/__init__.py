"""MLflow: one run per training, fed from the run folder."""
