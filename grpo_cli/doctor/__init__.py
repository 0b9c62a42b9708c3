"""Whether this machine can train, and what is wrong where it cannot."""
