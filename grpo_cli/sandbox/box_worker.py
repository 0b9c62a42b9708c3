"""Runs inside a box: executes one piece of Python code and answers the judge in JSON lines.

This source is passed to a bare interpreter (`python -c`), so it may import only the standard library, `wire` and
`box_tests`. A box has one of three jobs:

- `solution`: load the tested code as a module and serve calls of its functions. The code shares this process and can
  rewrite all of it, but it can only change its own return values, because this process never receives an expected value
  and never decides a verdict.
- `program`: run the tested code as a script, with the same guarantee.
- `tests`: run the problem's assert statements in a box that never contains the tested code. Every name of the solution
  is a stub, whose calls go to the judge and from there to the solution's box.
"""

import builtins
import contextlib
import resource
import symtable
import sys

from grpo_cli.sandbox.box_tests import run_tests
from grpo_cli.sandbox.wire import Channel, decode, encode, raised

# Modules that contest sites let a solution use without an import, in the order of LiveCodeBench's checker.
CONTEST_MODULES = ("string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random", "statistics")
CONTEST_MODULES += ("itertools", "functools", "operator", "io", "sys", "json")
CONTEST_RECURSION = 50_000
# Classes that LeetCode provides with the starter code of its problems.
LEETCODE_CLASSES = """
class ListNode:
    def __init__(self, val=0, next=None):
        self.val, self.next = val, next

class TreeNode:
    def __init__(self, val=0, left=None, right=None):
        self.val, self.left, self.right = val, left, right
"""


def run_program(code):
    """Run `code` as a script. A failure sets the exit status and is written to standard error."""
    main = sys.modules["__main__"] = type(sys)("__main__")
    sys.argv = ["solution.py"]
    prepare_as_contest(code, main.__dict__)
    # As in LiveCodeBench, a program that calls `exit` counts as finished, whatever its status.
    with contextlib.suppress(SystemExit):
        exec(compile(code, "<solution>", "exec"), main.__dict__)


def prepare_as_contest(code, namespace):
    """Raise the recursion limit. If `code` reads an undefined name, import the usual modules and their names."""
    sys.setrecursionlimit(CONTEST_RECURSION)
    if lacks_names(code):
        for module in (*CONTEST_MODULES, "builtins", "typing"):
            exec(f"from {module} import *", namespace)
        for module in CONTEST_MODULES:
            exec(f"import {module}", namespace)
        exec(LEETCODE_CLASSES, namespace)


def lacks_names(code):
    """Whether `code` may read a name that neither it nor Python defines."""
    module = symtable.symtable(code, "<solution>", "exec")
    defined = {symbol.get_name() for symbol in module.get_symbols() if symbol.is_local()} | {*dir(builtins), "__name__"}
    tables = [module]
    while tables:
        table = tables.pop()
        tables += table.get_children()
        read = (symbol.get_name() for symbol in table.get_symbols() if symbol.is_referenced() and symbol.is_global())
        if not defined.issuperset(read):
            return True
    return False


def first_that_compiles(codes):
    """Returns the first of `codes` that compiles. Raises the error of the last one if none does."""
    for code in codes[:-1]:
        with contextlib.suppress(SyntaxError, ValueError, RecursionError, MemoryError):
            compile(code, "<solution>", "exec")
            return code
    compile(codes[-1], "<solution>", "exec")
    return codes[-1]


def serve_solution(codes, is_contest, channel):
    """Load one of `codes`, then answer each request to call one of its functions, classes or methods."""
    module = sys.modules["solution"] = type(sys)("solution")
    given, objects, numbers, solvers = {}, [], {}, []

    def refer(value):
        if id(value) not in numbers:
            numbers[id(value)] = len(objects)
            objects.append(value)  # kept alive, so that no other object gets its id
        return numbers[id(value)]

    def defines(name):
        return hasattr(module, name) and getattr(module, name) is not given.get(name, module)

    def find(target):
        if type(target) is int:
            return objects[target]
        if target in (".getattr", ".setattr"):
            return getattr(builtins, target[1:])
        has_method = defines("Solution") and hasattr(module.Solution, target)
        if defines(target) and not (is_contest and has_method):
            return getattr(module, target)
        if has_method:  # LeetCode's convention
            if not solvers:
                solvers.append(module.Solution())
            return getattr(solvers[0], target)
        raise NameError(f"{target} is not defined")

    try:
        code = first_that_compiles(codes)
        if is_contest:
            prepare_as_contest(code, module.__dict__)
            given.update(module.__dict__)
        exec(compile(code, "<solution>", "exec"), module.__dict__)
        channel.send({"loaded": True})
    except BaseException as error:
        channel.send(raised(error))
        return
    while True:
        request = channel.receive()
        try:
            args = decode(request["args"], objects.__getitem__)
            kwargs = decode(request["kwargs"], objects.__getitem__)
            reply = {"value": encode(find(request["target"])(*args, **kwargs), refer)}
            args_after = encode(args, refer)
            if args_after != request["args"]:
                reply["args"] = args_after
        except BaseException as error:
            reply = raised(error)
        channel.send(reply)


def main():
    channel = Channel(int(sys.argv[1]))
    channel.send({"ready": True})
    frame = channel.receive()
    for name, limit in frame["limits"].items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (limit, limit))
    builtins.exit = builtins.quit = sys.exit  # normally added by the `site` module, which is not loaded here
    if frame["job"] == "solution":
        serve_solution(frame["codes"], frame["is_contest"], channel)
    elif frame["job"] == "program":
        run_program(first_that_compiles(frame["codes"]))
    else:
        run_tests(frame, channel)


if __name__ == "__main__":
    main()
