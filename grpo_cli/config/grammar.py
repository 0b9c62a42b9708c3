"""Hydra's grammar of overrides: how to quote a text, and what to type if Hydra cannot read an override."""

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, Quote, QuotedString
from hydra.errors import HydraException

PLAIN = re.compile(r"[\w./:@%+-]+", re.ASCII)  # needs no quotes, neither for Hydra nor for a shell
VALUE_FLAGS = (
    *("-c", "--cfg", "-p", "--package", "-cp", "--config-path", "-cn", "--config-name", "-cd", "--config-dir"),
    *("-i", "--info", "-sc", "--shell-completion", "--experimental-rerun"),
)
TEXT_SETTING = re.compile(r"\+*templates?(\.\w+)?\.(text|system|between|response_prefix|stop)=")
INTERPOLATION = re.compile(r"(\\*)\$\{")  # of OmegaConf; an odd number of backslashes before it escapes it
ESCAPES = {r"\n": "\n", r"\t": "\t", r"\\": "\\"}


def overrides_in(arguments: Sequence[str]) -> Iterator[str]:
    """The arguments except Hydra's flags and the values of flags."""
    for before, argument in zip(["", *arguments], arguments, strict=False):
        if not argument.startswith("-") and before not in VALUE_FLAGS:
            yield argument


def overrides_first(arguments: Sequence[str]) -> list[str]:
    """The overrides, then the flags and their values: Hydra rejects a flag between overrides.

    >>> overrides_first(["seed=1", "--config-dir", "mine", "-m", "steps=2"])
    ['seed=1', 'steps=2', '--config-dir', 'mine', '-m']
    """
    pairs = zip(["", *arguments], arguments, strict=False)
    flags = [argument for before, argument in pairs if argument.startswith("-") or before in VALUE_FLAGS]
    return [*overrides_in(arguments), *flags]


def parsed(argument: str) -> Override:
    """The override that an argument stands for. Raises HydraException if it breaks the grammar."""
    return OverridesParser.create().parse_override(argument)


def quoted(text: str) -> str:
    r"""`text` as a value that Hydra reads as exactly this text; in quotes if it needs them.

    >>> print(quoted("runs/first"), quoted("a b"), quoted('say "yes"'))
    runs/first "a b" 'say "yes"'
    """
    if PLAIN.fullmatch(text) and _value(f"key={text}") == text:
        return text
    return _in_quotes(text)


def escaped(text: str) -> str:
    r"""`text` with its interpolations escaped, so that OmegaConf resolves it to `text`.

    >>> print(escaped("${x}"), escaped(r"\frac{1}{2}"))
    \${x} \frac{1}{2}
    """
    return INTERPOLATION.sub(lambda found: found[1] * 2 + r"\${", text)


def shell_word(argument: str) -> str:
    """`argument` quoted for a POSIX shell, with the quotes that are easiest to read.

    >>> print(shell_word('run.name="a b"'), shell_word('run.name="it\\'s"'))
    'run.name="a b"' "run.name=\\"it's\\""
    """
    if "'" not in argument or re.search(r"[!$`]", argument):
        return shlex.quote(argument)
    return '"' + re.sub(r'(["\\])', r"\\\1", argument) + '"'


def setting(key: str, path: Path | str) -> str:
    """The argument that sets `key` to a path, quoted for Hydra and the shell.

    >>> print(setting("to", "my_model"), setting("to", "my model"))
    to=my_model 'to="my model"'
    """
    return shell_word(f"{key}={quoted(str(path))}")


def resuming(run_dir: Path) -> str:
    """The argument that resumes a run, quoted for Hydra and the shell.

    >>> print(resuming(Path("runs/first")), resuming(Path("a [1]")))
    resume=runs/first 'resume="a [1]"'
    """
    return setting("resume", run_dir)


def resume_command(command: str, run_dir: Path) -> str:
    """The command line that resumes a run.

    >>> print(resume_command("train", Path("runs/first")))
    r1zero train resume=runs/first
    """
    return f"r1zero {command} {resuming(run_dir)}"


def syntax_fault(argument: str, error: HydraException, *, is_text: bool, is_sweep: bool) -> str:
    """The message for an argument that Hydra cannot read: where its grammar stops, and what to type instead.

    `is_text`: the setting is a single text. `is_sweep`: the command line starts a sweep.
    """
    found = re.search(r"(?:at:|input|at) '(.*?)'(?: expecting.*)?$", str(error), re.DOTALL)
    stop = f"stops at {found[1]!r}" if found else f"says: {str(error).splitlines()[0]}"
    key, is_set, value = argument.partition("=")
    if not is_set or not re.fullmatch(r"[+~]*[\w./@-]+", key, re.ASCII):
        return f"{argument}: is not key=value, as in optimizer.lr=1e-5."
    forms = (f"{key}={form}" for form in _forms(value, is_text, is_sweep))
    best = next((form for form in forms if _is_read(form, value)), None)
    advice = f"Quote the value, for Hydra and for the shell: {shell_word(best)}" if best else "Put the value in quotes."
    return f"{argument}: Hydra's grammar {stop}. {advice}"


def comma_fault(argument: str, *, is_text: bool, is_list: bool) -> str:
    """The message for several values without a sweep, and what to type instead."""
    key, _, value = argument.partition("=")
    best = f"{key}={quoted(value)}" if is_text else f"{key}=[{value}]" if is_list else None
    advice = f", or give one value: {shell_word(best)}" if best else "."
    return f"{argument}: means several runs. Add -m for a sweep over them{advice}"


def with_line_breaks(argument: str) -> str:
    r"""The argument; if it sets a template's text, `\n`, `\t` and `\\` in it become line break, tab and backslash.

    >>> print(with_line_breaks(r'template.text="a\nb"'))
    template.text="a
    b"
    """
    if "\\" not in argument or not TEXT_SETTING.match(argument):
        return argument
    try:
        override = parsed(argument)
    except HydraException:
        return argument
    value = override.value()
    choices = value.list if isinstance(value, ChoiceSweep) else [value]
    return f"{argument.partition('=')[0]}={','.join(map(_decoded, choices))}"


def _decoded(value: Any) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(_decoded, value))}]"
    text = value.text if isinstance(value, QuotedString) else value
    if not isinstance(text, str):
        return "null" if text is None else str(text)
    return quoted(re.sub(r"\\[nt\\]", lambda found: ESCAPES[found[0]], text))


def _forms(value: str, is_text: bool, is_sweep: bool) -> Iterator[str]:
    """Guesses of what a value that Hydra cannot read means: several values, a list, one text."""
    if is_sweep:
        yield ",".join(_parts(value))
    if not is_text and value.startswith("[") and value.endswith("]"):
        yield f"[{','.join(_parts(value[1:-1]))}]"
    yield _in_quotes(value)


def _parts(values: str) -> Iterator[str]:
    """The values between the commas, each in quotes if Hydra cannot read it otherwise."""
    for part in values.split(","):
        text = part.strip()
        try:
            parsed(f"key={text}")
            yield text
        except HydraException:
            yield _in_quotes(text)


def _in_quotes(text: str) -> str:
    quote = Quote.single if '"' in text and "'" not in text else Quote.double
    return QuotedString(text, quote).with_quotes()


def _is_read(argument: str, value: str) -> bool:
    """Whether Hydra can read the argument and, if it is a text, reads exactly `value`."""
    parsed_value = _value(argument)
    return parsed_value == value if isinstance(parsed_value, str) else parsed_value is not None


def _value(argument: str) -> Any:
    try:
        return parsed(argument).value()
    except HydraException:
        return None
