"""Claims of the field as experiments with fixed seeds and limits, run by r1zero's own commands."""
