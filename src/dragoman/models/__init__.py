"""Tensors in, states and logits out; knows nothing of training or search."""
