"""Pictures, TensorBoard and pages."""
