"""Warms up ANTLR and sympy in the process that the grading processes are forked from. Imported there once.

ANTLR builds its parser tables as it reads, and sympy imports modules when it needs them: the first expressions take
seconds, later ones milliseconds. A process that replaces a killed one must not pay for this again.
"""

import logging

from grpo_cli.grading.symbolic import judge_fully

logging.disable(logging.CRITICAL)  # Math-Verify warns at every call that its own time limit is off

for gold, answer in (
    (r"\frac{\sqrt{3}}{2}", r"\frac{1}{2}\sqrt{3}"),
    (r"x^2+2x+1", r"(x+1)(x+1)"),
    (r"-\frac{\pi}{6}+\sin(2x)", r"2\sin x\cos x-\frac{\pi}{6}"),
    (r"\frac{n!}{k!(n-k)!}", r"\binom{n}{k}"),
    (r"a_{n}=2^{n+1}-n", r"2\cdot 2^{n}-n"),
    (r"3+4i", r"4i+3"),
    (r"2x+3y=6", r"y=2-\frac{2}{3}x"),
    (r"\lfloor x \rfloor", r"|x|"),
    (r"e^{-2x}\ln(x+1)", r"\log_{2}(x)+\sqrt[3]{x}"),
):
    judge_fully(gold, answer)
