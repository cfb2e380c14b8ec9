"""The judge, the evaluator, controls, searched baselines, and the comparison that ends a run."""
