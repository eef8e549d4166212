"""What training says when it cannot go on."""

from __future__ import annotations


class TrainingError(ValueError):
    """Training that cannot start or go on; the message says what was found and what to do."""
