"""Data sets of real images."""
