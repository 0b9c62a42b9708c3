"""The base models of the built-in task, as data: their words, their size, their training and their gates."""

from dataclasses import dataclass

from grpo_cli.data.make_zero import MIXED_VOCABULARY, VOCABULARY, Say, say_in_english, say_mixed, say_symbol


@dataclass(frozen=True, slots=True)
class Recipe:
    updates: int = 1250  # counted, never timed: a slow machine builds the same model
    documents: int = 128  # an update
    microbatches: int = 8  # of documents of like length, to save padding
    lr: float = 8e-3  # at its height
    warmup_updates: int = 50
    final_lr: float = 4e-4  # where the cosine ends
    persistent_share: float = 0.1  # of the writers; the others are impatient
    persistent: float = 0.95  # probability of going on after a "no"
    impatient: float = 0.02


@dataclass(frozen=True, slots=True)
class Quality:
    """What the model does by itself on the held-out problems, sampled at temperature 1.

    `right_equations` is a share of all equations. `right_verdicts` is the share of candidates that were judged right,
    of those that make 0 or of the others, whichever is lower. `new_candidates` is the share of candidates that the
    response had not tried before. `waits` are counted a response.
    """

    updates: int
    right_equations: float
    right_verdicts: float
    new_candidates: float
    waits: float


GATES = Quality(updates=1000, right_equations=0.93, right_verdicts=0.93, new_candidates=0.98, waits=0.05)


@dataclass(frozen=True, slots=True)
class Variant:
    model: str  # its file in conf/model
    vocabulary: tuple[str, ...] = VOCABULARY
    say: Say = say_symbol
    careful_say: Say = say_symbol  # of its cold start
    intermediate_size: int = 192
    num_kv_heads: int = 2
    recipe: Recipe = Recipe()
    gates: Quality = GATES  # the least of each


VARIANTS = {
    "plain": Variant("tiny"),
    "mixed": Variant("tiny_mixed", vocabulary=MIXED_VOCABULARY, say=say_mixed, careful_say=say_in_english),
    # Half the parameters: the student of a distillation.
    "half": Variant("tiny_half", intermediate_size=64, num_kv_heads=1),
}
