"""Run several r1zero commands one after the other, each with the models and data of the earlier ones."""
