"""The Tab key in bash and zsh."""

import os
import pty
import select
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from grpo_cli.commands.shell_completion import INSTALL, completions, main
from grpo_cli.errors import ConfigError


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("r1zero tra", ["train "]),
        ("r1zero train algorithm=dr_", ["algorithm=dr_grpo "]),
        ("r1zero plan --cfg job algorithm=dr_", ["algorithm=dr_grpo "]),
        ("r1zero train algorithm.advantage.std", ["algorithm.advantage.std_ddof="]),
        ("r1zero train rollo", ["rollout."]),
        ("r1zero train algorithm", ["algorithm.", "algorithm="]),
        ("r1zero train logger.mode=o", ["logger.mode=offline ", "logger.mode=online "]),
        ("r1zero train logger.console=f", ["logger.console=false "]),
        ("r1zero eval algor", []),
        ("r1zero list tem", ["template "]),
        ("r1zero copy reward/r1_l", ["reward/r1_language "]),
        ("r1zero train data.path=", []),
    ],
)
def test_a_word_is_completed(line, found):
    assert completions(line) == found


def test_the_users_own_choices_are_completed(tmp_path):
    (tmp_path / "algorithm").mkdir()
    (tmp_path / "algorithm" / "zzz.yaml").touch()
    assert completions(f"r1zero train --config-dir {tmp_path} algorithm=z") == ["algorithm=zzz "]


def test_the_error_for_another_shell_names_those_that_work():
    with pytest.raises(ConfigError, match="bash and zsh"):
        main(["-sc", "install=tcsh"])


@pytest.mark.parametrize("shell", INSTALL)
def test_the_tab_key_completes_in_a_real_shell(shell, tmp_path):
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")
    command = [shell, "--norc", "-i"] if shell == "bash" else [shell, "-f", "-i"]
    bin_dir = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{bin_dir}:{os.environ['PATH']}", "TERM": "dumb", "HOME": str(tmp_path)}
    main_end, shell_end = pty.openpty()
    process = subprocess.Popen(
        command,
        stdin=shell_end,
        stdout=shell_end,
        stderr=shell_end,
        env=environment,
        cwd=tmp_path,
        start_new_session=True,
    )
    os.close(shell_end)
    try:
        os.write(main_end, f'eval "$(r1zero -sc install={shell})"; echo rea""dy\n'.encode())
        read_until(main_end, "ready")
        os.write(main_end, b"r1zero tr\talgorithm=dr_\tlogger.mode=onl\t")
        assert "r1zero train algorithm=dr_grpo logger.mode=online" in read_until(main_end, "=online")
    finally:
        process.kill()
        process.wait()
        os.close(main_end)


def read_until(descriptor: int, end: str, wait_s: float = 120) -> str:
    """What a terminal shows, up to `end`."""
    shown = ""
    while end not in shown and select.select([descriptor], [], [], wait_s)[0]:
        shown += os.read(descriptor, 4096).decode(errors="replace").replace("\x07", "")
    return shown
