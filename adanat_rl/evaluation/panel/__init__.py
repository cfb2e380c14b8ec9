"""Judges of unlike kinds, and what they come to together."""
