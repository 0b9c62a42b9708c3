"""Samples responses from the current policy, and scores each as soon as it is complete."""
