"""Computes the reward of a response: whether its answer is correct, and every other term."""
