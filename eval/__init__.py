"""Judging a trained policy: rollouts, controls, statistics, results on disk, videos and the report."""
