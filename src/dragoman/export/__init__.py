"""Trained runs for other runtimes: folders that translate without PyTorch."""
