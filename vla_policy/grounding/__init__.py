"""Grounding: where the target of the instruction is, in every frame."""
