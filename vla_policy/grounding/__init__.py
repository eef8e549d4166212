"""Grounding: where the words' target is, in every frame."""
