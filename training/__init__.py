"""Behaviour cloning: datasets to batches, the loop, checkpoints of a run."""
