"""Gymnasium-Robotics' Fetch arm as tasks with words, pictures and labels. See docs/robotics.md."""
