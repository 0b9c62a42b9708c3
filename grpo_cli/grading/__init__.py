"""Answers to questions of mathematics: what a response states, and whether it equals the gold answer.

`extract_answer` finds the stated answer, `VerifierPool.judge` compares it. The rest of the project uses what is named
here and nothing behind it.
"""

from grpo_cli.grading.expression import expression_gold_fault
from grpo_cli.grading.extraction import WHITESPACE, Extraction, answer_block, extract_answer
from grpo_cli.grading.math_grader import Judgement, math_gold_fault
from grpo_cli.grading.thread_alarm import limit_math_verify_in_threads
from grpo_cli.grading.verifier_pool import VerifierPool

__all__ = [
    "WHITESPACE",
    "Extraction",
    "Judgement",
    "VerifierPool",
    "answer_block",
    "expression_gold_fault",
    "extract_answer",
    "limit_math_verify_in_threads",
    "math_gold_fault",
]
