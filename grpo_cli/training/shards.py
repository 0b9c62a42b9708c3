"""Reads a training state that DeepSpeed wrote, parameter by parameter, for any number of ranks and any ZeRO stage.

It uses the same records as DeepSpeed's own universal checkpoint, but writes no second copy to the disk: files are
memory-mapped, and a rank holds one whole tensor at a time.
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Size, Tensor, nn

from grpo_cli.errors import CheckpointError

MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Layout:
    """How a training state is split between ranks."""

    num_ranks: int
    zero_stage: int
    is_bf16: bool


class SavedShards:
    """The files of one `Policy.save`. Raises CheckpointError if there are none."""

    def __init__(self, folder: Path):
        self.folder = folder
        files = sorted(folder.glob("*_model_states.pt"))
        if not files:
            raise CheckpointError(f"{folder} holds no training state. Resume from another checkpoint.")
        self.model_states = _mapped(files[0])
        settings = self.model_states["ds_config"]
        self.layout = Layout(
            num_ranks=self.model_states["dp_world_size"],
            zero_stage=settings["zero_optimization"]["stage"],
            is_bf16=settings["bf16"]["enabled"],
        )

    def shapes(self) -> dict[str, Size]:
        """{name: shape} of the trained parameters; without ZeRO also of buffers and of tied weights' other names."""
        if self.layout.zero_stage == 0:
            return {name: tensor.shape for name, tensor in self.model_states["module"].items()}
        return {name: shape for group in self.model_states["param_shapes"] for name, shape in group.items()}

    def check_same_model(self, ours: Mapping[str, Size], known: Collection[str]) -> None:
        """Raise CheckpointError if `ours`, the shapes of this run's trained parameters, are not the saved ones.

        `known` are all names in this run's model, also those of buffers and tied weights' other names.
        """
        saved = self.shapes()
        if _adapter_rank(saved) != _adapter_rank(ours):
            raise CheckpointError(
                f"{self.folder} was written with model.lora.rank={_adapter_rank(saved)}, and this run has "
                f"model.lora.rank={_adapter_rank(ours)}. To resume from it, set "
                "its rank; otherwise start a new run."
            )
        differing = [n for n in ours if saved.get(n) != ours[n]] + [n for n in saved if n not in known]
        if differing:
            name = differing[0]
            raise CheckpointError(
                f"{self.folder} is from another model: {name.removeprefix('model.')} is "
                f"{_shape_text(saved.get(name))} there and {_shape_text(ours.get(name))} in this run. To resume from "
                "it, set model.path and model.lora.target_modules as they were; otherwise start a new run."
            )

    def optimizer(self, trained: Sequence[str]) -> "SavedOptimizer":
        """The optimizer's state. `trained` are the names of the trained parameters in the model's order."""
        if self.layout.zero_stage == 0:
            return _unsharded(self.model_states, trained)
        names = [f"*zero_pp_rank_{rank}_mp_rank_00_optim_states.pt" for rank in range(self.layout.num_ranks)]
        files = [file for name in names for file in self.folder.glob(name)]
        if len(files) < len(names):
            raise CheckpointError(
                f"{self.folder} was written by {len(names)} ranks and holds the optimizer states of {len(files)}. "
                "Resume from another checkpoint."
            )
        ranks = [_mapped(file)["optimizer_state_dict"] for file in files]
        if self.layout.zero_stage == 3:
            return _sharded_by_parameter(ranks, self.model_states["param_shapes"])
        return _sharded_flat(ranks, self.shapes())


@dataclass(frozen=True)
class Part:
    """A range of a flat tensor."""

    flat: Tensor
    start: int
    length: int


@dataclass(frozen=True)
class SavedOptimizer:
    """The fp32 weight and AdamW's state of every parameter, in the parts that the ranks had."""

    step: Tensor | None  # the number of steps taken, for the bias correction; None before the first
    parts: Mapping[str, Mapping[str, Sequence[Part]]]  # [parameter]["fp32" or one of MOMENTS]
    shapes: Mapping[str, Size]

    def tensors(self, name: str) -> Iterator[Tensor]:
        """The whole fp32 weight of a parameter, then its moments if it has any."""
        for parts in self.parts[name].values():
            yield torch.cat([part.flat.narrow(0, part.start, part.length) for part in parts]).view(self.shapes[name])


def part_of(tensor: Tensor, rank: int, num_ranks: int) -> Tensor:
    """The part of a tensor that ZeRO-3 keeps on a rank: all parts have the same size, with zeros at the end."""
    size = math.ceil(tensor.numel() / num_ranks)
    padded = nn.functional.pad(tensor.flatten(), (0, size * num_ranks - tensor.numel()))
    return padded.narrow(0, rank * size, size)


def _adapter_rank(shapes: Mapping[str, Size]) -> int:
    return next((shape[0] for name, shape in shapes.items() if ".lora_A." in name), 0)


def _shape_text(shape: Size | None) -> str:
    return "absent" if shape is None else "x".join(map(str, shape))


def _mapped(file: Path) -> dict:
    return torch.load(file, map_location="cpu", weights_only=True, mmap=True)


def _unsharded(model_states: Mapping, trained: Sequence[str]) -> SavedOptimizer:
    """The state of torch's AdamW, which numbers parameters instead of naming them."""
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
    """The state of ZeRO 1 and 2, which split one flat tensor of all parameters between ranks."""
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
    """The state of ZeRO 3, which splits every parameter between ranks; the last part is padded to the same size."""
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
