r"""config.yaml: it contains no secrets, is read back unchanged, and is resolved only for the account that wrote it."""

import pytest
from omegaconf import OmegaConf

from grpo_cli import secret
from grpo_cli.config.compose import to_typed
from grpo_cli.errors import CheckpointError, ConfigError
from grpo_cli.runs.frozen import check_no_missing_secrets, check_trusted, frozen_text, public_settings, read_frozen
from grpo_cli.runs.resume import frozen_settings

TEXTS = [
    r"${x}",
    r"\${x}",
    r"\\${oc.env:HF_TOKEN} \frac{1}{2} {problem}",
    "${",
    "not-for-others",
    "\\not-for-others",
    "é",
]


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setattr(secret, "_used_in_settings", set())
    monkeypatch.setenv("HF_TOKEN", "not-for-others")
    monkeypatch.setenv("TEAM", "blue-team")


@pytest.fixture
def file(compose_train, tmp_path):
    """The config.yaml of a run with secrets in its settings."""
    config = compose_train(
        "cluster=slurm_2x8",
        "logger.entity=${oc.env:TEAM}",
        "template.text='{problem} not-for-others'",
        "cluster.slurm.setup=[module load cuda,'export A_KEY=xyz']",
    )
    (tmp_path / "config.yaml").write_text(frozen_text(config), encoding="utf-8")
    return tmp_path / "config.yaml"


@pytest.fixture
def as_somebody_else(monkeypatch, tmp_path):
    return lambda: monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "somebody else"))


def test_the_file_contains_no_secret_and_its_writer_reads_the_original_settings(file):
    text = file.read_text()
    assert not [word for word in ("not-for-others", "blue-team", "xyz") if word in text]
    config = to_typed(frozen_settings(file.parent, "train"), "train")
    assert config.logger.entity == "blue-team"
    assert config.template.text == "{problem} not-for-others"
    assert config.cluster.slurm.setup == ["module load cuda", "export A_KEY=<masked>"]


@pytest.mark.parametrize("text", TEXTS)
def test_any_text_is_read_back_unchanged(compose_train, tmp_path, text):
    config = compose_train()
    config.template.text = text
    (tmp_path / "config.yaml").write_text(frozen_text(config), encoding="utf-8")
    assert to_typed(frozen_settings(tmp_path, "train"), "train").template.text == text


@pytest.mark.parametrize("text", [r"\${x}", r"\\\${oc.env:HOME}"])
def test_a_literal_interpolation_on_the_command_line_stays_a_text(compose_train, text):
    expected = text.replace(r"\$", "$").replace(r"\\", "\\")
    assert compose_train(f"template.text='{text}'").template.text == expected


def test_a_reference_is_plain_text_for_other_accounts(file, as_somebody_else, monkeypatch):
    as_somebody_else()
    assert to_typed(frozen_settings(file.parent, "train"), "train").logger.entity == "${oc.env:TEAM}"
    with pytest.raises(ConfigError, match=r"(?s)not contain secrets.*- cluster\.slurm\.setup.*- logger\.entity="):
        check_no_missing_secrets(frozen_settings(file.parent, "train"), file)


def test_a_changed_file_is_not_trusted_any_more(file):
    check_trusted(file, "resume.trust", False)
    file.write_text(file.read_text().replace("module load cuda", "rm -r x"))
    with pytest.raises(CheckpointError, match=r"not signed by this account.*would run as you.*resume\.trust=true"):
        check_trusted(file, "resume.trust", False)
    check_trusted(file, "resume.trust", True)
    assert OmegaConf.to_container(read_frozen(file), resolve=True)["logger"]["entity"] == "${oc.env:TEAM}"


def test_an_unsigned_file_of_an_earlier_version_is_not_trusted(file):
    file.write_text(file.read_text().rpartition("# signature")[0])
    with pytest.raises(CheckpointError, match="an earlier version of r1zero"):
        check_trusted(file, "resume.trust", False)


@pytest.mark.parametrize(("wandb", "trackers"), [("true", ["wandb"]), ("false", [])])
def test_the_logger_settings_of_an_earlier_version_are_read(file, wandb, trackers):
    old = file.read_text().replace("  trackers:\n  - wandb\n", f"  wandb: {wandb}\n  num_samples: 8\n")
    assert "num_samples" in old
    file.write_text(old)
    assert to_typed(read_frozen(file, is_ours=True), "train").logger.trackers == trackers


def test_a_masked_shell_line_must_be_given_again(file):
    with pytest.raises(ConfigError, match=r"(?s)Give the missing values on the command line.*cluster\.slurm\.setup"):
        check_no_missing_secrets(frozen_settings(file.parent, "train"), file)


def test_published_settings_have_names_in_place_of_secrets_and_no_shell_lines(compose_train):
    config = compose_train(
        "cluster=slurm_2x8", "logger.entity=${oc.env:TEAM}", "cluster.slurm.setup=[module load cuda]"
    )
    shown = public_settings(config)
    assert shown["logger"]["entity"] == "<TEAM>"
    assert shown["cluster"]["slurm"]["setup"] == ["# <masked>"]
    assert config.cluster.slurm.setup == ["module load cuda"]
