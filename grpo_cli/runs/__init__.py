"""Run folders: locks, frozen settings, and which settings may differ when a run is resumed."""
