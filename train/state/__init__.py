"""What a run keeps and shares: checkpoints, its log, its randomness, its processes."""
