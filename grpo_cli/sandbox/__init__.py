"""Runs the programs in responses in a sandbox, against the tests of their problem.

Threat model: a program may do anything that Python can do, and its author knows this code. It runs under bubblewrap and
a system call filter: no network, no files of the user, no other processes, and limits on time, memory and output
(`bwrap.py`, `syscall_filter.py`, `box.py`). It never sees an expected value and never reports a verdict: it returns
values through a narrow protocol (`wire.py`), and they are compared outside the sandbox (`same_result.py`). So a hostile
program can only fail.

This page is the package's public API: the rest of the project imports only the names below.
"""

from grpo_cli.sandbox.box import check_sandbox
from grpo_cli.sandbox.code import CodeGrade, code_fault, grade_code, stated_code

__all__ = ["CodeGrade", "check_sandbox", "code_fault", "grade_code", "stated_code"]
