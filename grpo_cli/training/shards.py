"""What DeepSpeed wrote on so many ranks and at one ZeRO stage, put together again parameter by parameter.

It reads by the records that DeepSpeed's own universal checkpoint is made from, but writes no second copy to the disk:
files are mapped, and a rank holds one whole tensor at a time.
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Size, Tensor

from grpo_cli.errors import CheckpointError

MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Layout:
    """How a training state is shared out."""

    num_ranks: int
    zero_stage: int
    is_bf16: bool


class SavedShards:
    """The files of one `Policy.save`. Raises CheckpointError where there are none."""

    def __init__(self, folder: Path):
        self.folder = folder
        files = sorted(folder.glob("*_model_states.pt"))
        if not files:
            raise CheckpointError(f"{folder} holds no training state. Go on from another checkpoint.")
        self.model_states = _mapped(files[0])
        settings = self.model_states["ds_config"]
        self.layout = Layout(
            num_ranks=self.model_states["dp_world_size"],
            zero_stage=settings["zero_optimization"]["stage"],
            is_bf16=settings["bf16"]["enabled"],
        )

    def shapes(self) -> dict[str, Size]:
        """{name: shape} of what was trained; without ZeRO also of buffers and of a tied weight's other name."""
        if self.layout.zero_stage == 0:
            return {name: tensor.shape for name, tensor in self.model_states["module"].items()}
        return {name: shape for group in self.model_states["param_shapes"] for name, shape in group.items()}

    def check_same_model(self, ours: Mapping[str, Size], known: Collection[str]) -> None:
        """Raise CheckpointError where `ours`, the shapes of what this run trains, are not those that were saved.

        `known` are all names that its model has, also those of buffers and of a tied weight's other name.
        """
        theirs = self.shapes()
        if _adapter_rank(theirs) != _adapter_rank(ours):
            raise CheckpointError(
                f"{self.folder} was written with model.lora.rank={_adapter_rank(theirs)}, and this run has "
                f"model.lora.rank={_adapter_rank(ours)}. Set the former to go on from it, or start a new run."
            )
        differing = [n for n in ours if theirs.get(n) != ours[n]] + [n for n in theirs if n not in known]
        if differing:
            name = differing[0]
            raise CheckpointError(
                f"{self.folder} is of another model: {name.removeprefix('model.')} is "
                f"{_in_words(theirs.get(name))} there and {_in_words(ours.get(name))} in this run. Set model.path and "
                "model.lora.target_modules as they were to go on from it, or start a new run."
            )

    def optimizer(self, trained: Sequence[str]) -> "SavedOptimizer":
        """The optimizer's part; `trained` are the names of the trained parameters in the order of the model."""
        if self.layout.zero_stage == 0:
            return _unsharded(self.model_states, trained)
        names = [f"*zero_pp_rank_{rank}_mp_rank_00_optim_states.pt" for rank in range(self.layout.num_ranks)]
        files = [file for name in names for file in self.folder.glob(name)]
        if len(files) < len(names):
            raise CheckpointError(
                f"{self.folder} was written by {len(names)} ranks and holds the optimizer states of {len(files)}. "
                "Go on from another checkpoint."
            )
        ranks = [_mapped(file)["optimizer_state_dict"] for file in files]
        if self.layout.zero_stage == 3:
            return _sharded_by_parameter(ranks, self.model_states["param_shapes"])
        return _sharded_flat(ranks, self.shapes())


@dataclass(frozen=True)
class Part:
    """A stretch of a flat tensor."""

    flat: Tensor
    start: int
    length: int


@dataclass(frozen=True)
class SavedOptimizer:
    """The fp32 weights and AdamW's state of every parameter, in the parts that the ranks held."""

    step: Tensor | None  # the number of steps taken, for the bias correction; None: not one yet
    parts: Mapping[str, Mapping[str, Sequence[Part]]]  # of a parameter, of its "fp32" weight and of its MOMENTS
    shapes: Mapping[str, Size]

    def tensors(self, name: str) -> Iterator[Tensor]:
        """The whole fp32 weight of a parameter, then its moments where it has any."""
        for parts in self.parts[name].values():
            yield torch.cat([part.flat.narrow(0, part.start, part.length) for part in parts]).view(self.shapes[name])


def _adapter_rank(shapes: Mapping[str, Size]) -> int:
    return next((shape[0] for name, shape in shapes.items() if ".lora_A." in name), 0)


def _in_words(shape: Size | None) -> str:
    return "absent" if shape is None else "x".join(map(str, shape))


def _mapped(file: Path) -> dict:
    return torch.load(file, map_location="cpu", weights_only=True, mmap=True)


def _unsharded(model_states: Mapping, trained: Sequence[str]) -> SavedOptimizer:
    """Of torch's AdamW, which numbers parameters instead of naming them."""
    (group,), states = model_states["optimizer"]["param_groups"], model_states["optimizer"]["state"]
    parts: dict[str, dict[str, list[Part]]] = {}
    shapes = {}
    for index, name in zip(group["params"], trained, strict=True):
        weight = model_states["module"][name]
        shapes[name] = weight.shape
        for key, tensor in {"fp32": weight, **_moments(states.get(index, {}))}.items():
            parts.setdefault(name, {})[key] = [Part(tensor.reshape(-1), 0, tensor.numel())]
    return SavedOptimizer(_step(states), parts, shapes)


def _sharded_flat(ranks: Sequence[Mapping], shapes: Mapping[str, Size]) -> SavedOptimizer:
    """Of ZeRO 1 and 2, which cut one flat tensor of all parameters into ranks."""
    parts: dict[str, dict[str, list[Part]]] = {}
    for saved in ranks:
        state = saved["base_optimizer_state"]["state"].get(0, {})
        flats = {"fp32": saved["single_partition_of_fp32_groups"][0], **_moments(state)}
        for name, place in saved["param_slice_mappings"][0].items():
            for key, flat in flats.items():
                parts.setdefault(name, {}).setdefault(key, []).append(Part(flat, place.start, place.numel))
    optimizer = ranks[0]["base_optimizer_state"]
    return SavedOptimizer(_step(optimizer["state"]), parts, shapes)


def _sharded_by_parameter(ranks: Sequence[Mapping], groups: Sequence[Mapping[str, Size]]) -> SavedOptimizer:
    """Of ZeRO 3, which cuts every parameter into ranks, the last part filled up to the size of the others."""
    parts: dict[str, dict[str, list[Part]]] = {}
    for rank, saved in enumerate(ranks):
        for index, group in enumerate(groups):
            state = saved["optimizer_state_dict"]["state"].get(index, {})
            flats = {"fp32": saved["fp32_flat_groups"][index], **_moments(state)}
            start = 0
            for name, shape in group.items():
                size = math.ceil(shape.numel() / len(ranks))
                length = max(0, min(size, shape.numel() - rank * size))
                for key, flat in flats.items():
                    parts.setdefault(name, {}).setdefault(key, []).append(Part(flat, start, length))
                start += size
    optimizer = ranks[0]["optimizer_state_dict"]
    shapes = {name: shape for group in groups for name, shape in group.items()}
    return SavedOptimizer(_step(optimizer["state"]), parts, shapes)


def _moments(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: state[key] for key in MOMENTS if key in state}


def _step(states: Mapping[int, Mapping[str, Tensor]]) -> Tensor | None:
    return next(iter(states.values()))["step"] if states else None
