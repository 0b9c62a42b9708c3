"""The built-in task in two sizes."""

import random
from itertools import product

from grpo_cli.data.make_zero import VOCABULARY, sample_trace
from grpo_cli.data.make_zero_sizes import LARGE, SMALL, heldout_problems, problems, size_of


def test_half_of_the_problems_are_small_and_none_is_held_out_and_trained_on():
    for of_split in (problems(), heldout_problems()):
        sizes = [size_of(problem.text) for problem in of_split]
        assert sizes.count(SMALL) == sizes.count(LARGE) == len(sizes) / 2 > 10
    assert not {problem.id for problem in problems()} & {problem.id for problem in heldout_problems()}


def test_every_problem_has_a_solution_and_every_trace_stays_in_the_vocabulary():
    rng = random.Random(0)
    for problem in problems() + heldout_problems():
        first, *terms = map(int, problem.text.split())
        signs = product((1, -1), repeat=len(terms))
        assert 0 in [first + sum(s * t for s, t in zip(each, terms, strict=True)) for each in signs], problem
        words = sample_trace(problem.text, rng, persistence=1).split()
        assert {*words, *problem.text.split()} <= {*VOCABULARY}
        assert "yes" in words  # a persistent writer tries every candidate, until one is right
