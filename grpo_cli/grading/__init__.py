"""Grading of mathematical answers: finds the answer in a response and compares it with the gold answer.

`extract_answer` finds the stated answer, `VerifierPool.judge` compares it. This page is the package's public API: the
rest of the project imports only the names below.
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
