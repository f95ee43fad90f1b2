"""Search over the model contract: greedy, beam, sampling; no model knowledge."""
