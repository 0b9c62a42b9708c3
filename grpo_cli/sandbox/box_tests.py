"""What runs a problem's own assert statements, in a box that the tested code never enters.

It is handed to a bare interpreter, so it imports the standard library and `wire` alone.
"""

import builtins
import sys

from grpo_cli.sandbox.wire import decode, encode, raised

COMPARISONS = ("__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__")
CONTAINER_METHODS = ("__len__", "__getitem__", "__setitem__", "__delitem__", "__str__")
COMPREHENSIONS = ("<listcomp>", "<setcomp>", "<dictcomp>")


class Opaque:
    """An object that lives in the solution's box. It tells the tests nothing; they can only hand it back."""

    def __init__(self, number):
        object.__setattr__(self, "_number", number)


def run_tests(frame, channel):
    """Run the problem's setup and tests, `frame["stubs"]` being the names that the solution must provide.

    What a stub returns is rebuilt from plain types, so that no operator, method or truth value of the solution's
    making can reach an assertion. Only of an object that the tests themselves have made, by a capitalised name, can
    they read attributes and call methods; these too give plain data.
    """
    linked = {}  # the objects which the tests themselves have stored in attributes of others
    statements = []  # that are being run, outermost first
    given = {}  # of each argument that a call changed, by its id: itself, and a copy of it as it was given

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
        """The statement that `frame`, of the tests, is now running; a lambda or comprehension belongs to its caller."""
        while frame.f_globals is globals() or frame.f_code.co_name in ("<lambda>", "<genexpr>", *COMPREHENSIONS):
            frame = frame.f_back
        return statements[-1] if statements and statements[-1].frame is frame else None

    class Statement:
        """A statement of the tests, in which all reads of an argument see it as it was before the calls.

        What the calls did to it shows from the next statement on. What a helper returns (`is_return`) is still part
        of its caller's statement. An assertion has an `index`, and reports how it went.
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
        """What an operator or a built-in function of the tests does with an object. It gives plain data, too."""

        def method(self, *others):
            # Never against the tests' own values: an object that says it equals all things would pass any assertion.
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
        namespace.update(stubs)  # the setup may hold the solution's own signature
        exec(compile(frame["code"], "<tests>", "exec"), namespace)
        channel.send({"end": True})
    except BaseException as error:
        channel.send(raised(error))


def error_like(names, text):
    """The nearest built-in exception, for tests that expect it; never one that ends a loop silently."""
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
    """Let the tests see what the solution did to a list, dict, set or bytearray that it was given."""
    if type(old) is not type(new):
        return
    if type(old) in (list, bytearray):
        old[:] = new
    elif type(old) in (dict, set):
        old.clear()
        old.update(new)
