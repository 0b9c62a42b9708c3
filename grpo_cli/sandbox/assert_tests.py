"""Tests in the form of assert statements, as in HumanEval and MBPP."""

import ast
import builtins
import symtable
import sys
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

from grpo_cli.choices import Sandbox
from grpo_cli.errors import DataError
from grpo_cli.sandbox.box import Box, BoxError, Limits, describe_error, printable
from grpo_cli.sandbox.case_tests import Outcome
from grpo_cli.sandbox.solution_block import defines


@dataclass(frozen=True)
class AssertTests:
    """Test code for a second box, in which stubs replace the names that the solution must define."""

    setup: str
    code: str  # each assert statement reports its result under its index in `asserts`
    stubs: tuple[str, ...]
    asserts: tuple[str, ...]
    names: tuple[str, ...]  # the names under test: the candidate, otherwise all stubs
    starter: str  # code that the solution continues: the setup, if it begins the candidate

    @property
    def total(self) -> int:
        return max(1, len(self.asserts))

    def run(self, codes: Sequence[str], sandbox: Sandbox, limits: Limits) -> Generator[Outcome, None, None]:
        """Yield the outcome of each assert statement, for the first of `codes` that compiles. Raises BoxError."""
        with Box(sandbox, limits) as solution, Box(sandbox, limits) as tests:
            tests.wait_until_ready()
            solution.load("solution", codes=codes, is_contest=False)
            tests.load("tests", code=self.code, setup=self.setup, stubs=self.stubs)
            while True:
                frame = tests.receive()
                if "call" in frame:
                    tests.send(solution.call(frame["call"]))
                elif "test" in frame:
                    yield frame["test"], self._failure(frame)
                elif "raised" in frame:
                    raise BoxError(describe_error(frame))
                else:
                    return

    def _failure(self, frame: dict[str, Any]) -> str:
        if "raised" not in frame:
            return ""
        return printable(f"{self.asserts[frame['test']]:.120}: {describe_error(frame)}")


def parse_asserts(code: str, setup: str, entry_point: Any) -> AssertTests:
    """Returns the tests in `code`. Raises DataError if they cannot be used."""
    if not isinstance(entry_point, str | None):
        raise DataError(f"`entry_point` must be a string, not {entry_point!r:.80}.")
    try:
        tree = ast.parse(code)
        if _defines_check_uncalled(tree):
            if not entry_point:
                raise DataError("The tests define check(candidate). Set `entry_point` to the candidate's name.")
            tree.body += ast.parse(f"check({entry_point})").body
        setup_and_tests = f"{setup}\n{ast.unparse(tree)}"
        stubs, attribute_owners = _free_names(setup_and_tests), _attribute_owners(ast.parse(setup_and_tests))
        candidate = {node.id for node in ast.walk(ast.parse(entry_point or "")) if isinstance(node, ast.Name)}
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise DataError(f"The tests, their setup or `entry_point` are not Python: {error}.") from None
    # MBPP's tests use modules that only the solution imports.
    modules = stubs & sys.stdlib_module_names & attribute_owners
    # The solution provides the candidate, even if the setup defines it or a builtin has the same name.
    stubs = stubs - modules | candidate
    if not stubs:
        raise DataError("The tests call no function that a solution could define.")
    statements = _Statements(stubs)
    code = ast.unparse(ast.fix_missing_locations(statements.visit(tree)))
    imports = "".join(f"import {module}\n" for module in sorted(modules))
    names = tuple(sorted(candidate or stubs))
    starter = setup if defines(setup, candidate) else ""
    return AssertTests(imports + setup, code, tuple(sorted(stubs)), tuple(statements.asserts), names, starter)


def _defines_check_uncalled(tree: ast.Module) -> bool:
    is_defined = any(isinstance(node, ast.FunctionDef) and node.name == "check" for node in tree.body)
    calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    return is_defined and not any(isinstance(func, ast.Name) and func.id == "check" for func in calls)


def _free_names(code: str) -> set[str]:
    """Returns the names that `code` reads but that neither it nor Python defines."""
    module = symtable.symtable(code, "<tests>", "exec")
    defined = {symbol.get_name() for symbol in module.get_symbols() if symbol.is_local()} | set(dir(builtins))
    read, tables = set(), [module]
    while tables:
        table = tables.pop()
        tables += table.get_children()
        read |= {name.get_name() for name in table.get_symbols() if name.is_referenced() and name.is_global()}
    return read - defined


def _attribute_owners(tree: ast.AST) -> set[str]:
    owners = (node.value for node in ast.walk(tree) if isinstance(node, ast.Attribute))
    return {owner.id for owner in owners if isinstance(owner, ast.Name)}


class _Statements(ast.NodeTransformer):
    """Wraps statements that contain a call in `with` blocks, in which arguments keep the values that they had before.

    The block of an assert statement also reports its result and catches its exception, so that the next ones run. An
    assert inside a `try` or a `with` reports nothing, because the test may expect its exception.
    """

    def __init__(self, stubs: set[str]) -> None:
        self.asserts: list[str] = []
        self._not_tested = set(dir(builtins)) - stubs
        self._num_guards = 0
        self._results: dict[str, set[str]] = {}  # from a variable that holds a call's result to the call's arguments

    def visit_Try(self, node: ast.stmt) -> ast.AST:
        self._num_guards += 1
        self.generic_visit(node)
        self._num_guards -= 1
        return node

    visit_TryStar = visit_With = visit_AsyncWith = visit_Try

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        if isinstance(node.test, ast.Constant):
            return node
        text = ast.unparse(node)
        for compare in ast.walk(node):
            if isinstance(compare, ast.Compare) and len(compare.comparators) == 1:
                self._use_given_arguments(compare)
        if self._num_guards:
            return _in_block(node)
        self.asserts.append(text)
        return _in_block(node, str(len(self.asserts) - 1))

    def _use_given_arguments(self, node: ast.Compare) -> None:
        """Make the expected side of a comparison read a call's arguments with the values from before the call.

        The other side reads the result of the call.
        """
        left, right = node.left, node.comparators[0]
        left_arguments, right_arguments = (self._arguments(_names(side)) for side in (left, right))
        if left_arguments and not right_arguments:
            node.comparators = [_ReadAsGiven(left_arguments - _names(left)).visit(right)]
        elif right_arguments and not left_arguments:
            node.left = _ReadAsGiven(right_arguments - _names(right)).visit(left)

    def _arguments(self, names: set[str]) -> set[str]:
        return {argument for name in names for argument in self._results.get(name, ())}

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        for name in set().union(*map(_names, node.targets)):
            self._results[name] = {
                argument.id
                for call in ast.walk(node.value)
                if isinstance(call, ast.Call) and not _names(call.func) & self._not_tested
                for argument in call.args
                if isinstance(argument, ast.Name)
            }
        return self.visit_Expr(node)

    def visit_Expr(self, node: ast.stmt) -> ast.AST:
        kinds = {type(child) for child in ast.walk(node)}
        return _in_block(node) if ast.Call in kinds and not kinds & {ast.Yield, ast.YieldFrom, ast.Await} else node

    visit_AugAssign = visit_AnnAssign = visit_Expr

    def visit_Return(self, node: ast.Return) -> ast.AST:
        return self.visit_Expr(node) if node.value else node


class _ReadAsGiven(ast.NodeTransformer):
    """Replaces reads of the variables `names` by calls of `_as_given`."""

    def __init__(self, names: set[str]) -> None:
        self._variables = names

    def visit_Name(self, node: ast.Name) -> ast.AST:
        is_read = node.id in self._variables and isinstance(node.ctx, ast.Load)
        return ast.Call(ast.Name("_as_given", ast.Load()), [node], []) if is_read else node


def _names(node: ast.AST) -> set[str]:
    return {child.id for child in ast.walk(node) if isinstance(child, ast.Name)}


def _in_block(node: ast.stmt, index: str = "") -> ast.With:
    is_return = "is_return=True" if isinstance(node, ast.Return) else ""
    (block,) = ast.parse(f"with _statement({index}{is_return}): pass").body
    assert isinstance(block, ast.With)
    block.body = [node]
    return block
