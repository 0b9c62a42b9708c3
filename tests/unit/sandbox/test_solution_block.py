import ast

import pytest

from grpo_cli.sandbox.solution_block import candidate_programs, extract_code

FENCED = "```python\nx = 1\n```"
DOCUMENTED = 'def f():\n    """\n    ```\n    f()\n    ```\n    """'


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (FENCED, "x = 1"),
        ("Here:\n```py\nx = 1\n```\ndone", "x = 1"),
        ("```\nx = 1\n```", "x = 1"),
        ("  ```Python\n  x = 1\n  ```", "x = 1"),  # the code is indented like the fence
        ("1. So:\n   ```python\n   if x:\n       y = 1\n   z = 2\n   ```", "if x:\n    y = 1\nz = 2"),
        ("  ```python\n  x = '''\n a\n'''\n  ```", "x = '''\na\n'''"),
        ("  ```python\nif x:\n  y = 1\n  ```", "if x:\n  y = 1"),  # the code is not indented like the fence
        ("```python\n    return x\n```", "    return x"),
        ("```python\nx = 1```\nIt prints:\n```\n1\n```", "x = 1"),  # closed on the last line of code
        ("```python\nx = 1```", "x = 1"),
        ("```python\nx = '```'\n```", "x = '```'"),
        ("```python\n# ```x``` or ```y```\n```", "# ```x``` or ```y```"),
        ('```python title="x"\nx = 1\n```', "x = 1"),
        ("```Python3\nx = 1\n```", "x = 1"),
        ("```python3.11 main.py\nx = 1\n```", "x = 1"),
        ("```python,editable\nx = 1\n```", "x = 1"),
        ("```{.python .numberLines}\nx = 1\n```", "x = 1"),
        ("``` py\nx = 1\n````", "x = 1"),
        ("~~~python\nx = 1\n~~~", "x = 1"),
        ("````python\nx = 1\n# ```\n````", "x = 1\n# ```"),
        (f"{FENCED}\n```python-repl\n>>> x\n```", "x = 1"),
        (f"{FENCED}\n```pycon\n>>> x\n```", "x = 1"),
        (f"{FENCED}\nOutput:\n```\n1\n```", "x = 1"),  # a labelled block is preferred
        (f"{FENCED}\n```text\n1\n```", "x = 1"),
        ("```text\n1\n```", None),
        (f"```python\n{DOCUMENTED}\n```", DOCUMENTED),  # fences in a string do not close the block
        ("```python\n# '''\n```\nprints\n```text\n1\n```", "# '''"),  # quotes in a comment do not open a string
        (f"```python\nold = 1\n```\n{FENCED}", "x = 1"),  # the last block ...
        (f"{FENCED}\n```bash\nls\n```", "x = 1"),  # ... that is Python ...
        (f"{FENCED}\n```python\nx = 2", "x = 1"),  # ... and closed
        ("```python\nx = 1", None),
        ("```print(1)``` is Python\n" + FENCED, "x = 1"),
        ("x = 1", None),
        ("", None),
        (f"<think>{FENCED}</think> <answer>y = 2</answer>", "y = 2"),
        (f"<think>no</think> <answer>Like so:\n{FENCED}\n</answer>", "x = 1"),
        (f"{FENCED}\n<answer>```bash\nls\n```</answer>", None),
        (f"<answer></answer>{FENCED}", None),
        (f"<answer>{FENCED}</answer><answer>y = 2</answer>", None),
        (f"<think>{FENCED}", None),
        (f"<think>{FENCED}</think>", None),
        (f"<think>hm</think>\n{FENCED}", "x = 1"),
    ],
)
def test_the_code_is_the_last_closed_block_of_python_in_the_answer(text, code):
    assert extract_code(text) == code


@pytest.mark.parametrize(
    "unit",
    [
        "```python\n",
        '```python\n\'\n"""\n```\n',
        "x```\n",
        "```\n'''\n```\n```\n\"\"\"\n```\n",
        "```\nx = \n```\n",
    ],
)
def test_extraction_is_linear_in_the_text(unit):
    extract_code(unit * 100_000, ["f", "g"])


SOLVE = "def solve(n):\n    return n"
BLOCK = f"```python\n{SOLVE}\n```"


@pytest.mark.parametrize(
    "after",
    [
        "For example:\n```python\nprint(solve(3))\n```",
        "Output:\n```\n3\n```",
        "```python\nassert solve(1) == 1  # def solve(n)\n```",
        "```python\ndef main():\n    solve(3)\n```",
        "```python\nsolved = solve(3)\n```",
        "```python\nresult = solve\n```",
        "```text\ndef solve(n): as above\n```",
    ],
)
@pytest.mark.parametrize("names", [("solve",), ("Helper", "solve")])
def test_the_solution_is_the_last_block_that_defines_the_required_names(after, names):
    text = f"```python\ndef solve(n): pass\n```\nbetter:\n{BLOCK}\n{after}"
    assert extract_code(text, names) == SOLVE
    assert extract_code(f"<answer>{text}</answer>", names) == SOLVE


@pytest.mark.parametrize(
    ("blocks", "names", "solution"),
    [
        (["class Solution:\n    def solve(self): pass", "Solution().solve()"], ["solve"], 0),
        (["async def solve(): pass", "solve()"], ["solve"], 0),
        (["solve = lambda n: n", "solve == 3"], ["solve"], 0),
        (["solve: Callable = abs", "solve(3)"], ["solve"], 0),
        (["from math import floor as solve", "solve(3)"], ["solve"], 0),
        (["def solve(n): pass", "solve = solve"], ["solve"], 0),  # a definition is preferred to an assignment
        (["class A: pass\nclass B: pass", "class B: pass"], ["A", "B"], 0),  # it defines more of the names
        (["class B: pass", "class A: pass\nclass B: pass"], ["A", "B"], 1),
        (["    return n", "x = 1"], ["solve"], 1),  # no block defines it: the last one
        (["def solver(n): pass", "x = 1"], ["solve"], 1),
    ],
)
def test_definitions_count_before_assignments_and_calls(blocks, names, solution):
    text = "\n".join(f"```python\n{code}\n```" for code in blocks)
    assert extract_code(text, names) == blocks[solution]


def test_an_unlabelled_block_may_define_the_function():
    assert extract_code(f"```\n{SOLVE}\n```\n```python\nsolve(3)\n```", ["solve"]) == SOLVE


STARTER = "class Solution:\n    def add(self, a: int, b: int) -> int:\n        "
PROMPT = 'def add(a, b):\n    """Add."""\n'


@pytest.mark.parametrize(
    ("starter", "code", "program"),
    [
        ("", "x = 1", "x = 1"),
        (STARTER, "return a + b", f"{STARTER}return a + b"),
        (STARTER, "c = a + b\n        return c", f"{STARTER}c = a + b\n        return c"),
        (STARTER, "        c = a + b\n        return c", f"{STARTER.rstrip()}\n        c = a + b\n        return c"),
        (STARTER, f"{STARTER}return a", f"{STARTER}return a"),
        (STARTER, "def add(a, b): return a", "def add(a, b): return a"),
        (STARTER, "add = int.__add__", "add = int.__add__"),
        (PROMPT, "    return a + b", f"{PROMPT}    return a + b"),
        (PROMPT.strip(), "    return a + b", f"{PROMPT}    return a + b"),
        (PROMPT, "def add(a, b): return a", f"{PROMPT}def add(a, b): return a"),
    ],
)
def test_code_continues_the_starter_or_is_a_whole_program(starter, code, program):
    texts = candidate_programs(starter, code, ["add"])
    assert next(filter(is_python, texts)) == program
    assert texts[-1] == code  # the last choice is the code alone


def is_python(code):
    try:
        ast.parse(code)
    except SyntaxError:
        return False
    return True
