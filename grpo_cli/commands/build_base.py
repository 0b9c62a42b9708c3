"""`r1zero build-base`: a base model of the built-in task, trained anew from honest traces."""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from grpo_cli.data.make_zero_variants import VARIANTS
from grpo_cli.errors import SetupError

DESCRIPTION = """\
Train a small base model of the built-in task make_zero and write it as a Hugging Face folder.

The variants are plain (model=tiny), mixed (model=tiny_mixed, which mixes English and Russian) and half
(model=tiny_half, of half the size). The package comes with all three, so this is for whoever wants to see where they
are from, or to change them. It takes two to three minutes on one core. A model that fails a quality gate is not
written.
"""
EXAMPLES = """\
examples:
  r1zero build-base
  r1zero build-base --seed 1 --out my_base; r1zero train model=tiny model.path=my_base
  r1zero build-base --variant mixed --out my_mixed
  r1zero build-base --updates 2000 --threads 2 --out my_base --overwrite
"""


def main(argv: list[str]) -> None:
    """Build, gate and write the base model.

    Raises SetupError where the folder is taken or cannot be made, TrainingError where the model fails a gate.
    """
    parser = argparse.ArgumentParser(
        prog="r1zero build-base",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--variant", choices=VARIANTS, default="plain", help="which model (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("make_zero_base"), help="folder (default: %(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="write into a folder that has files already")
    parser.add_argument("--seed", type=int, default=0, help="of weights and traces (default: %(default)s)")
    parser.add_argument("--updates", type=_at_least(1000), help="optimizer steps, 1000 or more (default: the recipe's)")
    parser.add_argument(
        "--threads", type=_at_least(1), default=1, help="CPU threads; 1 repeats bit by bit (default: 1)"
    )
    arguments = parser.parse_args(argv)
    _make_folder(arguments.out, arguments.overwrite)

    import torch
    from transformers.utils.logging import disable_progress_bar

    from grpo_cli.data.make_zero_base import build_base

    disable_progress_bar()  # of the writing of one small file
    torch.set_num_threads(arguments.threads)
    variant = VARIANTS[arguments.variant]
    if arguments.updates is not None:
        variant = replace(variant, recipe=replace(variant.recipe, updates=arguments.updates))
    quality = build_base(arguments.out, variant, seed=arguments.seed)
    print(
        f"{arguments.out}: {quality.updates} updates; on the held-out problems {quality.right_equations:.1%} of the "
        f"equations and {quality.right_verdicts:.1%} of the verdicts are right, and {quality.waits:.2f} times a "
        f'response it says "wait".\nTrain it: r1zero train model={variant.model} model.path={arguments.out}'
    )


def _make_folder(folder: Path, overwrite: bool) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        taken = any(folder.iterdir())
    except OSError as error:
        raise SetupError(f"--out {folder}: {error.strerror}. Give a folder that can be written.") from error
    if taken and not overwrite:
        raise SetupError(f"--out {folder} has files already. Give another folder, or add --overwrite.")


def _at_least(least: int) -> Callable[[str], int]:
    """What reads an argument that is a whole number of `least` or more."""

    def whole_number(text: str) -> int:
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"{text}: must be {least} or more")
        return int(text)

    return whole_number
