"""Sweeps: many trainings, each a run folder, chosen and stopped by Tune."""
