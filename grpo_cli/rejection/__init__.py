"""Training data by rejection sampling: rules choose which responses of a model to keep."""
