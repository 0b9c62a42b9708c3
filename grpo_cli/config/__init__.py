"""The settings: their dataclasses, how conf/ is composed into them, and the rules between them."""
