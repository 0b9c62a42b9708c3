"""Whether this machine can train, and what is wrong if it cannot."""
