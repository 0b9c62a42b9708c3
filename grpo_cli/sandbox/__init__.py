"""Programs in responses, run in a sandbox against the tests of their problem.

Threat model: a program may do anything that Python can, and knows this code. It runs under bubblewrap and a filter of
system calls, without a network, files or other processes, within limits of time, memory and output (`bwrap.py`,
`syscall_filter.py`, `box.py`). It never sees an expected value and gives no verdict: it returns values through a narrow
protocol (`wire.py`), and the comparison happens outside (`same_result.py`). So the worst that it can do is fail.

The rest of the project uses what is named here and nothing behind it.
"""

from grpo_cli.sandbox.box import check_sandbox
from grpo_cli.sandbox.code import CodeGrade, code_fault, grade_code, stated_code

__all__ = ["CodeGrade", "check_sandbox", "code_fault", "grade_code", "stated_code"]
