"""Settings of a process, each tested in a separate process, since they cannot be undone."""

import subprocess
import sys

COUNT_NEW_PAGES_OF_TWENTY_TENSORS = """
import resource, torch
from grpo_cli.launch.process import keep_freed_memory

{first}
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.zeros(2**26, dtype=torch.uint8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def num_new_pages(first: str) -> int:
    text = COUNT_NEW_PAGES_OF_TWENTY_TENSORS.format(first=first)
    return int(subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True).stdout)


def test_freed_memory_is_used_again():
    # A few tensors may still get new memory: an aligned block needs slightly more space than it frees.
    assert num_new_pages("keep_freed_memory()") < num_new_pages("") / 4
