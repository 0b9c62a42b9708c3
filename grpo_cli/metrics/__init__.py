"""A run's metrics, and where they are written."""
