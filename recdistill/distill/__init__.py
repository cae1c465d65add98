"""Distillation as a list of terms: which items to compare (draws), how (losses), how much (weights)."""
