"""What a process keeps: seen in one of its own, since it cannot be undone."""

import subprocess
import sys

NEW_PAGES_OF_TWENTY_TENSORS = """
import resource, torch
from grpo_cli.launch.process import keep_freed_memory

{first}
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.zeros(2**26, dtype=torch.uint8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def new_pages(first: str) -> int:
    text = NEW_PAGES_OF_TWENTY_TENSORS.format(first=first)
    return int(subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True).stdout)


def test_freed_memory_is_used_again():
    # Each has a place of its own in turn at most a few times: an aligned one needs a little more room than it leaves.
    assert new_pages("keep_freed_memory()") < new_pages("") / 4
