"""Evaluation: how well a model answers problems that it is not trained on."""
