"""Figures from results, without training."""
