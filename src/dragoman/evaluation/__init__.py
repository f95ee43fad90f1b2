"""Metrics on strings, significance, scores of a run."""
