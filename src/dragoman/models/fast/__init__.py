"""CPU kernels behind the textbook models: the same numbers, sooner."""
