"""Stages of training and sampling, one after the other, each a command of its own."""
