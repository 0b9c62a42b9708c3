"""Every setting is explained in --help and in docs/settings.md."""

from dataclasses import is_dataclass
from pathlib import Path

import pytest

from grpo_cli.config.commands import SCHEMAS
from grpo_cli.config.reference import Setting, settings_of, settings_page
from grpo_cli.reward.terms import BUILT_IN, FunctionTerm

ROOT = Path(__file__).parents[3]


def settings_in(group: type, prefix: str = "") -> list[Setting]:
    found = []
    for setting in settings_of(group, prefix):
        found += [setting] if isinstance(setting, Setting) else settings_in(setting[1], f"{setting[0]}.")
    return found


@pytest.mark.parametrize("group", [*SCHEMAS.values(), *BUILT_IN.values(), FunctionTerm])
def test_every_setting_has_a_meaning(group):
    assert is_dataclass(group)
    assert [setting.key for setting in settings_in(group) if not setting.meaning.endswith(".")] == []


def test_the_page_of_settings_is_current():
    page = (ROOT / "docs/settings.md").read_text(encoding="utf-8")
    assert page == settings_page(), "run `make settings`"


def test_help_shows_meanings_values_and_choices(r1zero_process, tmp_path):
    shown = r1zero_process("train", "--help", "optimizer.lr=3e-6", cwd=tmp_path).stdout
    assert "optimizer.lr=3e-06\n    Learning rate.\n" in shown
    assert "One of group_mean, leave_one_out, batch_mean, none." in shown
    groups = [line.split(":")[0] for line in shown.splitlines() if ": cpu, " in line or line.startswith("reward: ")]
    assert "cluster" in groups
    assert "tuning:" not in shown
    assert "pipeline:" not in shown
