"""Run folders: one start at a time, frozen settings, and what may differ when a run is resumed."""
