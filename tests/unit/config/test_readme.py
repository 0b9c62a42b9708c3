"""Every command in the README and the docs composes, and every link leads to a file."""

import re
import shlex
from pathlib import Path

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from grpo_cli.config.commands import COMMANDS, check_settings
from grpo_cli.config.overrides import allow_new_entries, check_overrides, expand_shorthands

ROOT = Path(__file__).parents[3]
README = ROOT / "README.md"
PAGES = [
    README,
    *(ROOT / name for name in ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "benchmarks/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
COMMAND = re.compile(r"(?:r1zero|make) .*")
EVENING_PATH_LINES = 3500


def commands_in(text: str) -> list[list[str]]:
    """The words of each command in fenced blocks without a language. A line that ends in \\ is joined to the next."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    lines = [line for language, block in fenced if not language for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.split(line, comments=True) for line in lines if COMMAND.match(line)]


SHOWN = {page: commands_in(page.read_text(encoding="utf-8")) for page in PAGES}
LINES = [list(words) for words in dict.fromkeys(tuple(words) for page in PAGES for words in SHOWN[page])]
COMPOSED = [(words[1], words[2:]) for words in LINES if words[0] == "r1zero" and COMMANDS[words[1]].settings]
# Settings that name the user's own files.
USERS_FILES = {
    "model.path=base/": "model.path=org/base",
    "algorithm=mine": "algorithm=grpo",
    "template.system=system.txt": "template.system=README.md",
    "template.examples=solved.jsonl": "template.examples=[]",
    "algorithm=my_dr_grpo": "algorithm=dr_grpo",
    "my_conf": "docs",
}


@pytest.mark.parametrize(
    "name",
    ["README.md", "docs/algorithms.md", "docs/data.md", "docs/resume.md", "docs/evaluation.md", "docs/templates.md"],
)
def test_a_page_shows_commands(name):
    assert any(words[0] == "r1zero" for words in SHOWN[ROOT / name])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file(page):
    targets = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    missing = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert not missing


def test_the_index_lists_every_page():
    index = (ROOT / "docs/README.md").read_text(encoding="utf-8")
    unlisted = [
        page.name for page in (ROOT / "docs").glob("*.md") if page.name != "README.md" and page.name not in index
    ]
    assert not unlisted


def test_the_evening_path_is_short_enough_for_an_evening():
    section = README.read_text(encoding="utf-8").partition("### The evening path")[2].partition("\n## ")[0]
    places = [ROOT / name for name in re.findall(r"`(grpo_cli/[^`]+)`", section)]
    files = {file for place in places for file in (place.rglob("*.py") if place.is_dir() else [place])}
    assert len(places) > 10
    assert sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files) <= EVENING_PATH_LINES


@pytest.mark.parametrize("words", [words for words in LINES if words[:1] == ["r1zero"]], ids=shlex.join)
def test_the_subcommand_exists(words):
    assert words[1] in COMMANDS


@pytest.mark.parametrize("words", [words for words in LINES if words[:1] == ["make"]], ids=shlex.join)
def test_the_make_targets_exist(words):
    makefile = (ROOT / "Makefile").read_text()
    for target in words[1:]:
        assert "=" in target or re.search(rf"^{target}:", makefile, flags=re.MULTILINE)


@pytest.mark.parametrize(("command", "arguments"), COMPOSED, ids=lambda words: shlex.join(words) if words else "none")
def test_the_command_composes_and_passes_the_checks(command, arguments, compose_as):
    if "--compare" in arguments:
        return  # takes no settings
    config_name = COMMANDS[command].conf or command
    arguments = expand_shorthands(config_name, [_with_existing_file(argument) for argument in arguments])
    check_overrides(config_name, arguments)
    overrides = OverridesParser.create().parse_overrides(
        allow_new_entries(config_name, [argument for argument in arguments if "=" in argument])
    )
    swept = [override.value().list if override.is_choice_sweep() else None for override in overrides]
    for job in range(max([len(values) for values in swept if values], default=1)):
        check_settings(
            compose_as(
                config_name,
                *(
                    override.input_line if values is None else f"{override.key_or_group}={values[job % len(values)]}"
                    for override, values in zip(overrides, swept, strict=True)
                ),
            )
        )


def _with_existing_file(argument: str) -> str:
    key, _, value = argument.partition("=")
    if argument in USERS_FILES:
        return USERS_FILES[argument]
    if value.endswith(".jsonl") and key != "to":
        return f"{key}=README.md"  # any file that exists
    return "README.md" if argument.endswith(".jsonl") and not value else argument


def test_the_example_of_a_new_algorithm_composes(compose_train):
    page = (ROOT / "docs/algorithms.md").read_text(encoding="utf-8")
    (method,) = re.findall(r"```yaml\n(.*?)```", page, flags=re.DOTALL)
    config = compose_train(*(f"algorithm.{key}" for key in _dotted(yaml.safe_load(method))))
    check_settings(config)
    assert config.algorithm.advantage.baseline == "leave_one_out"
    assert config.algorithm.epsilon_high == 0.28


def _dotted(values: dict, prefix: str = "") -> list[str]:
    return [
        line
        for key, value in values.items()
        for line in (_dotted(value, f"{prefix}{key}.") if isinstance(value, dict) else [f"{prefix}{key}={value}"])
    ]
