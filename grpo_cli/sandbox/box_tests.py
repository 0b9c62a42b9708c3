"""Runs a problem's assert statements in a box that never contains the tested code.

This source is passed to a bare interpreter, so it may import only the standard library and `wire`.
"""

import builtins
import sys

from grpo_cli.sandbox.wire import decode, encode, raised

COMPARISONS = ("__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__")
CONTAINER_METHODS = ("__len__", "__getitem__", "__setitem__", "__delitem__", "__str__")
COMPREHENSIONS = ("<listcomp>", "<setcomp>", "<dictcomp>")


class Opaque:
    """A reference to an object in the solution's box. The tests can only pass it back to the solution."""

    def __init__(self, number):
        object.__setattr__(self, "_number", number)


def run_tests(frame, channel):
    """Run the problem's setup and tests. `frame["stubs"]` lists the names that the solution must define.

    A stub returns values rebuilt from plain types, so that no operator, method or truth value defined by the solution
    can reach an assertion. The tests can read attributes and call methods only on objects that they have created
    themselves by calling a capitalised name; these too return plain data.
    """
    linked = {}  # objects that the tests have stored in attributes of other objects, by number
    statements = []  # the running statements, outermost first
    given = {}  # by id, each argument that a call changed and a copy of it from before the call

    def number_of(value):
        if not isinstance(value, Opaque):
            raise TypeError(f"only plain data can reach the solution, not a {type(value).__name__}")
        return value._number

    def ask(target, args, kwargs=None, resolve=Opaque):
        encoded = {"args": encode(list(args), number_of), "kwargs": encode(kwargs or {}, number_of)}
        channel.send({"call": {"target": target, **encoded}})
        reply = channel.receive()
        if "raised" in reply:
            raise error_like(reply["raised"], reply["text"])
        if "args" in reply:
            before, after = decode(encoded["args"], Opaque), decode(reply["args"], Opaque)
            given.update((id(arg), (arg, copy)) for arg, copy in zip(args, before, strict=True) if is_mutable(arg))
            changes = list(zip(args, after, strict=True))
            if (statement := statement_of(sys._getframe(1))) is not None:
                statement.changes += changes
            else:
                update_all(changes)
        return decode(reply["value"], resolve)

    def statement_of(frame):
        """Returns the statement that a frame of the tests is running; a lambda or comprehension runs its caller's."""
        while frame.f_globals is globals() or frame.f_code.co_name in ("<lambda>", "<genexpr>", *COMPREHENSIONS):
            frame = frame.f_back
        return statements[-1] if statements and statements[-1].frame is frame else None

    class Statement:
        """A statement of the tests. Inside it, arguments keep the values that they had before the calls.

        Changes that the calls make appear after the statement. A helper's return statement (`is_return`) counts as part
        of its caller's statement. An assertion has an `index` and reports its result.
        """

        def __init__(self, index=None, is_return=False):
            self.index, self.is_return, self.changes = index, is_return, []

        def __enter__(self):
            self.frame = sys._getframe(1)
            statements.append(self)

        def __exit__(self, kind, error, _):
            statements.pop()
            caller = statement_of(self.frame.f_back) if self.is_return else None
            if caller is not None:
                caller.changes += self.changes
            else:
                update_all(self.changes)
            if self.index is not None and (kind is None or issubclass(kind, Exception)):
                channel.send({"test": self.index, **(raised(error) if kind else {})})
                return True
            return False

    def as_given(value):
        arg, copy = given.get(id(value), (None, None))
        return copy if arg is value else value

    def special(name):
        """Returns the method `name` for an object of the solution; it returns plain data."""

        def method(self, *others):
            # Never compared with the tests' own values: an object that equals everything would pass any assertion.
            if name in COMPARISONS and not isinstance(others[0], Object):
                return NotImplemented
            value = ask(".getattr", [self, name], resolve=Method)(*others)
            return NotImplemented if isinstance(value, Opaque) else value

        return method

    class Object(Opaque):
        __hash__ = object.__hash__

        def __bool__(self):
            return True

        def __getattr__(self, name):
            if name.startswith("__"):
                raise AttributeError(name)
            return ask(".getattr", [self, name], resolve=lambda number: linked.get(number) or Method(number))

        def __setattr__(self, name, value):
            ask(".setattr", [self, name, value])
            if isinstance(value, Object):
                linked[value._number] = value

    for name in (*COMPARISONS, *CONTAINER_METHODS):
        setattr(Object, name, special(name))

    class Method(Opaque):
        def __call__(self, *args, **kwargs):
            return ask(self._number, args, kwargs)

    def stub(name):
        resolve = Object if name[:1].isupper() else Opaque
        return lambda *args, **kwargs: ask(name, args, kwargs, resolve)

    stubs = {name: stub(name) for name in frame["stubs"]}
    namespace = {"__name__": "tests", "_statement": Statement, "_as_given": as_given, **stubs}
    channel.send({"loaded": True})
    try:
        exec(compile(frame["setup"], "<setup>", "exec"), namespace)
        namespace.update(stubs)  # the setup may define the solution's name, with only its signature
        exec(compile(frame["code"], "<tests>", "exec"), namespace)
        channel.send({"end": True})
    except BaseException as error:
        channel.send(raised(error))


def error_like(names, text):
    """Returns the nearest built-in exception, for tests that expect one; never StopIteration, which ends a loop."""
    kinds = [getattr(builtins, name, None) for name in names]
    if StopIteration not in kinds:
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, Exception):
                return kind(text)
    return RuntimeError(text)


def update_all(changes):
    for old, new in changes:
        update_in_place(old, new)


def is_mutable(value):
    return type(value) in (list, dict, set, bytearray)


def update_in_place(old, new):
    """Copy the solution's changes to an argument (list, dict, set or bytearray) into the tests' object."""
    if type(old) is not type(new):
        return
    if type(old) in (list, bytearray):
        old[:] = new
    elif type(old) in (dict, set):
        old.clear()
        old.update(new)
