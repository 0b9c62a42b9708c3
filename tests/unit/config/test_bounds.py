"""Every numeric setting declares bounds, and no command accepts a number that is not finite."""

import math
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import Field, fields, is_dataclass
from itertools import product
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from grpo_cli.bounds import Bounds, number_faults
from grpo_cli.config.commands import SCHEMAS, check_settings
from grpo_cli.config.examples import DemonstrationsConfig
from grpo_cli.errors import ConfigError
from grpo_cli.pipeline.check import check_stages
from grpo_cli.pipeline.stages import Stage
from grpo_cli.reward.terms import BUILT_IN, FunctionTerm, Term, typed_terms

TERMS = {**BUILT_IN, "mine": FunctionTerm}
NEEDED = {"model": {"path": "x"}, "mine": {"function": "m:f"}}  # required options of a term
NOT_FINITE = [math.nan, math.inf, -math.inf]


def types_in(hint: Any) -> Iterator[Any]:
    yield hint
    for argument in get_args(hint):
        yield from types_in(argument)


def groups(schema: type) -> Iterator[type]:
    """A schema and every dataclass in it."""
    yield schema
    for hint in get_type_hints(schema).values():
        for kind in types_in(hint):
            if is_dataclass(kind):
                yield from groups(kind)


def numeric_fields() -> dict[str, Field]:
    roots = [*SCHEMAS.values(), DemonstrationsConfig, Term, *TERMS.values()]
    return {
        f"{group.__name__}.{field.name}": field
        for group in (group for root in roots for group in groups(root))
        for field in fields(group)
        if {int, float} & set(types_in(get_type_hints(group)[field.name]))
    }


def test_every_numeric_setting_declares_its_bounds():
    found = numeric_fields()
    assert len(found) > 90
    assert [name for name, field in found.items() if "bounds" not in field.metadata] == []


def test_every_default_is_within_its_bounds():
    for name, field in numeric_fields().items():
        default = field.default_factory() if callable(field.default_factory) else field.default
        if default != "???":
            assert list(number_faults(name, default, field)) == []


def float_keys(settings: Any, prefix: str = "") -> Iterator[str]:
    """The dotted key of every float, also of those in a list."""
    hints = get_type_hints(type(settings))
    for field in fields(settings):
        value, key = getattr(settings, field.name), f"{prefix}{field.name}"
        if is_dataclass(value):
            yield from float_keys(value, f"{key}.")
        elif float in types_in(hints[field.name]):
            yield key


def replaced(settings: Any, key: str, value: float) -> Any:
    """A copy with another value; in a list, as its first item."""
    changed = deepcopy(settings)
    *path, name = key.split(".")
    group = changed
    for part in path:
        group = getattr(group, part)
    pair = any(get_args(kind) == (float, float) for kind in types_in(get_type_hints(type(group))[name]))
    setattr(group, name, [value, 0.9] if pair else value)
    return changed


@pytest.mark.parametrize("command", [command for command in SCHEMAS if command != "export"])
def test_no_float_setting_of_a_command_may_be_nan_or_infinite(command, compose_as):
    settings = compose_as(command)
    keys = list(float_keys(settings))
    assert len(keys) > 7
    for key, value in product(keys, NOT_FINITE):
        with pytest.raises(ConfigError) as error:
            check_settings(replaced(settings, key, value))
        [line] = [line for line in str(error.value).splitlines() if f"- {key}=" in line and "must be finite" in line]
        assert f"Set {key}=" in line


@pytest.mark.parametrize("name", TERMS)
@pytest.mark.parametrize("value", [*NOT_FINITE, 10**400], ids=["nan", "inf", "-inf", "too large"])
def test_no_float_option_of_a_reward_term_may_be_nan_or_infinite(name, value):
    options = [field.name for field in fields(TERMS[name]) if field.type is float]
    assert "weight" in options
    for option in options:
        with pytest.raises(ConfigError, match=f"reward.terms.{name}.{option}=.*: must be finite"):
            typed_terms({name: {**NEEDED.get(name, {}), option: value}})


def test_the_weight_of_a_mixed_data_set_may_not_be_nan(compose_as):
    with pytest.raises(ConfigError, match=r"data.mix.more.weight=nan: must be finite"):
        check_settings(compose_as("sft", "++data.mix.more.path=README.md", "++data.mix.more.weight=nan"))


def test_a_stage_of_a_pipeline_may_not_contain_nan_or_infinity():
    stage = Stage("rl", ["train", "optimizer.lr=nan", "optimizer.betas=[0.9,inf]"], uses=[])
    with pytest.raises(ConfigError) as error:
        check_stages([stage], Path("/p"))
    assert "optimizer.lr=nan: must be finite" in str(error.value)
    assert "optimizer.betas=[0.9,inf]: must be finite" in str(error.value)


OUT_OF_RANGE = [
    ("train", "optimizer.betas=[0.9,1]", "must be 0 or more and below 1. Set optimizer.betas=[0.9,0.95]"),
    ("train", "optimizer.betas=[0.9]", "must be 2 numbers. Set optimizer.betas=[0.9,0.95]"),
    ("train", "optimizer.lr=2", "must be 0 or more and at most 1. Set optimizer.lr=1e-06"),
    ("train", "optimizer.eps=0", "must be above 0"),
    ("train", "rollout.temperature=0.001", "must be 0.01 or more and at most 2 (vLLM's range)"),
    ("train", "rollout.temperature=3", "must be 0.01 or more and at most 2 (vLLM's range)"),
    ("train", "eval.temperature=0.001", "Set eval.temperature=0.01, or 0, which is greedy"),
    ("train", "++rollout.max_new_tokens_schedule={8200:0}", "must be 1 or more"),
    ("train", "++rollout.max_new_tokens_schedule={-1:8}", "must be 1 or more"),
    ("train", "rollout.mismatch_limit=0", "must be above 0. Set rollout.mismatch_limit=null"),
    ("train", "reward.timeout_s=1e12", "must be 0.1 or more and at most 86400. Set reward.timeout_s=2.0"),
    ("train", "reward.num_workers=0", "must be 1 or more"),
    ("train", "reward.memory_gib=0", "must be 0.25 or more"),
    ("train", "cluster.threads=0", "must be 1 or more. Set cluster.threads=null"),
    ("train", "cluster.nodes=0", "must be 1 or more"),
    ("train", "cluster.vllm.tensor_parallel_size=0", "must be 1 or more"),
    ("train", "seed=-1", "must be 0 or more"),
    ("train", f"seed={2**64}", "at most 9223372036854775807"),
    ("train", "data.max_bad_rows=-1", "must be 0 or more"),
    ("train", "data.pass_rate=[0.1]", "must be 2 numbers. Set data.pass_rate=null"),
    ("eval", "cluster.vllm.gpu_memory_utilization=1.5", "must be above 0 and at most 1"),
    ("eval", "benchmark.make_zero.max_bad_rows=-1", "benchmark.make_zero.max_bad_rows=-1: must be 0 or more"),
    ("analyze", "analyze.group_sizes=[8,1]", "analyze.group_sizes=[8,1]: must be 2 or more"),
    ("reward-model", "cluster.threads=0", "must be 1 or more"),
]


@pytest.mark.parametrize(("command", "override", "message"), OUT_OF_RANGE, ids=[f"{c}:{o}" for c, o, _ in OUT_OF_RANGE])
def test_the_error_for_a_number_out_of_bounds_suggests_one_within(command, override, message, compose_as):
    with pytest.raises(ConfigError) as error:
        check_settings(compose_as(command, override))
    key = override.split("=")[0].lstrip("+")
    [line] = [line for line in str(error.value).splitlines() if line.startswith(f"- {key}=")]
    assert message in line


def test_at_least_and_at_most_include_their_ends_and_above_and_below_do_not():
    assert [Bounds(at_least=0, at_most=1).allow(value) for value in (-0.1, 0, 1, 1.1)] == [False, True, True, False]
    assert [Bounds(above=0, below=1).allow(value) for value in (0, 0.1, 1)] == [False, True, False]
    assert Bounds().allow(10**400)  # too large for a float
