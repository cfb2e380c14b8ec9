"""Figures and the HTML report of a run; data in, matplotlib figures or text out."""
