"""Training data by rejection sampling: responses of a model, of which rules choose the ones to keep."""
