"""Loss, optimisers and schedules, the loop, checkpoints, distribution."""
