"""Encodes values as JSON on their way into a box and out of it. The judge and the box's worker share this module.

This source is passed to a bare interpreter, so it may import only the standard library.
"""

import builtins
import importlib
import itertools
import json
import os
import sys
from collections import namedtuple

MAX_ITEMS = 100_000  # that are read from an iterator

# Encoders for classes of the standard library. The keys are names, so that the box need not import the classes.
_ENCODERS = {
    ("fractions", "Fraction"): lambda value: [encode(value.numerator), encode(value.denominator)],
    ("decimal", "Decimal"): str,
    ("datetime", "datetime"): lambda value: value.isoformat(),
    ("datetime", "date"): lambda value: value.isoformat(),
    ("datetime", "time"): lambda value: value.isoformat(),
    ("datetime", "timedelta"): lambda value: [value.days, value.seconds, value.microseconds],
}


def encode(value, refer=None):
    """Returns `value` as JSON. A type that JSON lacks becomes `{tag: body}`.

    Subclasses and arrays become plain values; a named tuple keeps its field names. `refer` turns any other object into
    a number, by which the box that contains the object finds it again.
    """
    kind = type(value)
    if value is None or kind in (bool, float, str):
        return value
    if kind is int:
        return value if abs(value) < 1 << 63 else {"int": hex(value)}
    if kind is list:
        return [encode(item, refer) for item in value]
    if kind in (tuple, set, frozenset):
        return {kind.__name__: [encode(item, refer) for item in value]}
    if kind is dict:
        return {"dict": [[encode(key, refer), encode(item, refer)] for key, item in value.items()]}
    if kind is complex:
        return {"complex": [value.real, value.imag]}
    if kind in (bytes, bytearray):
        return {kind.__name__: value.hex()}
    if kind is range:
        return {"range": [value.start, value.stop, value.step]}
    if isinstance(value, type):
        is_builtin = getattr(builtins, value.__name__, None) is value
        return {"type": value.__name__} if is_builtin else {"object": refer(value)}
    for base in kind.__mro__:
        if encoder := _ENCODERS.get((base.__module__, base.__name__)):
            return {base.__name__: encoder(value)}
        if (base.__module__, base.__name__) == ("collections", "deque"):
            return {"deque": [encode(item, refer) for item in value]}
    if isinstance(value, tuple) and hasattr(kind, "_fields"):
        return {"namedtuple": [kind.__name__, list(kind._fields), [encode(item, refer) for item in value]]}
    for base in (int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset):
        if isinstance(value, base):
            return encode(base(value), refer)
    if hasattr(kind, "tolist"):  # numpy's arrays and scalars
        return encode(value.tolist(), refer)
    if kind.__module__ in ("builtins", "collections", "itertools") and hasattr(kind, "__iter__"):
        return {"iterator": [encode(item, refer) for item in itertools.islice(value, MAX_ITEMS)]}
    return {"object": refer(value)}


_DECODERS = {
    "int": lambda body, _: int(body, 16),
    "complex": lambda body, _: complex(*body),
    "bytes": lambda body, _: bytes.fromhex(body),
    "bytearray": lambda body, _: bytearray.fromhex(body),
    "range": lambda body, _: range(*body),
    "tuple": lambda body, resolve: tuple(decode(item, resolve) for item in body),
    "set": lambda body, resolve: {decode(item, resolve) for item in body},
    "frozenset": lambda body, resolve: frozenset(decode(item, resolve) for item in body),
    "dict": lambda body, resolve: {decode(key, resolve): decode(item, resolve) for key, item in body},
    "iterator": lambda body, resolve: iter([decode(item, resolve) for item in body]),
    "deque": lambda body, resolve: _standard("collections", "deque")(decode(item, resolve) for item in body),
    "namedtuple": lambda body, resolve: _named_tuple(*body, resolve),
    "Fraction": lambda body, _: _standard("fractions", "Fraction")(*(_integer(part) for part in body)),
    "Decimal": lambda body, _: _standard("decimal", "Decimal")(body),
    "datetime": lambda body, _: _standard("datetime", "datetime").fromisoformat(body),
    "date": lambda body, _: _standard("datetime", "date").fromisoformat(body),
    "time": lambda body, _: _standard("datetime", "time").fromisoformat(body),
    "timedelta": lambda body, _: _standard("datetime", "timedelta")(*body),
    "type": lambda body, _: _builtin_type(body),
    "object": lambda body, resolve: resolve(body),
}


def decode(data, resolve):
    """The inverse of `encode`. `resolve` turns an object's number into the object, or a reference to it."""
    if type(data) is list:
        return [decode(item, resolve) for item in data]
    if type(data) is not dict:
        return data
    ((tag, body),) = data.items()
    return _DECODERS[tag](body, resolve)


def _standard(module, name):
    return getattr(importlib.import_module(module), name)


def _integer(data):
    value = decode(data, None)
    if type(value) is not int:
        raise TypeError("a fraction must consist of two integers")
    return value


def _named_tuple(name, fields, values, resolve):
    """Returns a named tuple, or a plain tuple if a value is callable, which could pass as a method that tests call."""
    values = [decode(value, resolve) for value in values]
    if any(map(callable, values)):
        return tuple(values)
    return namedtuple(name, fields)(*values)


def _builtin_type(name):
    kind = getattr(builtins, name)
    if not isinstance(kind, type):
        raise TypeError(f"{name} is not a type")
    return kind


class Channel:
    """Sends JSON lines to the judge and receives them."""

    def __init__(self, fd):
        self._reader, self._writer = os.fdopen(fd, "rb"), os.fdopen(fd, "wb")

    def send(self, frame):
        self._writer.write(json.dumps(frame, separators=(",", ":")).encode() + b"\n")
        self._writer.flush()

    def receive(self):
        line = self._reader.readline()
        if not line:
            sys.exit()
        return json.loads(line)


def raised(error):
    """Returns an exception as data: the names of its classes, most specific first, and its text."""
    return {"raised": [kind.__name__ for kind in type(error).__mro__], "text": str(error)[:200]}
