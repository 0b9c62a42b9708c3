"""What runs inside a sandbox's box: it executes one text of Python and answers the judge in JSON lines.

Its source is handed to a bare interpreter (`python -c`), so it imports the standard library and `wire` alone. A box
does one of three jobs:

- `solution`: load the tested code as a module and serve calls of its functions. That code shares this process
  and may rewrite all of it. It gains nothing but the say over its own return values, since no expected value and
  no verdict ever comes here.
- `program`: run the tested code as a script. The same holds.
- `tests`: run the problem's own assert statements, in a box that the tested code never enters. Each name of the
  solution is a stub there, which asks the judge, who asks the solution's box.
"""

import builtins
import contextlib
import resource
import symtable
import sys

from grpo_cli.sandbox.box_tests import run_tests
from grpo_cli.sandbox.wire import Channel, decode, encode, raised

# What contest sites let a solution use without importing it, in the order of LiveCodeBench's checker.
CONTEST_MODULES = ("string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random", "statistics")
CONTEST_MODULES += ("itertools", "functools", "operator", "io", "sys", "json")
CONTEST_RECURSION = 50_000
# What LeetCode writes above the starter code of its problems.
LEETCODE_CLASSES = """
class ListNode:
    def __init__(self, val=0, next=None):
        self.val, self.next = val, next

class TreeNode:
    def __init__(self, val=0, left=None, right=None):
        self.val, self.left, self.right = val, left, right
"""


def run_program(code):
    """Run `code` as a script would be; a failure shows in the exit status and on standard error."""
    main = sys.modules["__main__"] = type(sys)("__main__")
    sys.argv = ["solution.py"]
    prepare_as_contest(code, main.__dict__)
    # LiveCodeBench counts a program that calls `exit` as one that ended, whatever status it gave.
    with contextlib.suppress(SystemExit):
        exec(compile(code, "<solution>", "exec"), main.__dict__)


def prepare_as_contest(code, namespace):
    """Let `code` recurse deeply and find the usual modules and their names, where it reads a name that it lacks."""
    sys.setrecursionlimit(CONTEST_RECURSION)
    if lacks_names(code):
        for module in (*CONTEST_MODULES, "builtins", "typing"):
            exec(f"from {module} import *", namespace)
        for module in CONTEST_MODULES:
            exec(f"import {module}", namespace)
        exec(LEETCODE_CLASSES, namespace)


def lacks_names(code):
    """Whether `code` reads a name that neither it nor Python defines, or may do so."""
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
    """The first text that is Python. Raises the last one's error where none is."""
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
            objects.append(value)  # held, so that its id stays its own
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
    builtins.exit = builtins.quit = sys.exit  # what the `site` module, which is left out, would add
    if frame["job"] == "solution":
        serve_solution(frame["codes"], frame["is_contest"], channel)
    elif frame["job"] == "program":
        run_program(first_that_compiles(frame["codes"]))
    else:
        run_tests(frame, channel)


if __name__ == "__main__":
    main()
