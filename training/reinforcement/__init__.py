"""Experts learned by reinforcement from the simulation's state, and how they are stored."""
