"""Checks that vLLM has the weights that it was sent.

While weights change slowly, log-probabilities do not show a sync that failed silently: in bf16 at a learning rate of
1e-6, most weights do not change for many steps.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from grpo_cli.errors import TrainingError

NUM_COLUMNS = 2  # of each matrix; different ones at each sync
NUM_SHOWN = 3


class WeightCheck:
    """Keeps a part of each weight that is sent, and compares it with the weights in vLLM.

    Compares whole vectors and a few columns of matrices. Weights that vLLM stores in another form (merged experts,
    weights split between ranks) are not compared.
    """

    def __init__(self) -> None:
        self._sent: dict[str, Tensor] = {}
        self._columns: dict[str, list[int]] = {}
        self._num_syncs = 0
        self._in_another_form: set[str] = set()

    def watched(self, weights: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        """Yield the (Hugging Face name, tensor) pairs unchanged, and keep a part of each."""
        self._sent.clear()
        self._num_syncs += 1
        for name, weight in weights:
            if weight.ndim == 2:
                width = weight.shape[1]
                self._columns[name] = [(self._num_syncs * NUM_COLUMNS + i) % width for i in range(NUM_COLUMNS)]
                self._sent[name] = weight[:, self._columns[name]]
            elif weight.ndim == 1:
                self._sent[name] = weight.clone()
            yield name, weight

    @torch.no_grad()
    def compare(self, model: nn.Module) -> int:
        """The number of weights of vLLM's `model` that were compared with what was sent.

        Raises TrainingError if some differ. Weights that differ after the first sync are stored in another form and are
        not compared later. If they had not arrived, vLLM would sample with random weights, and the comparison of
        log-probabilities would show it.
        """
        modules = dict(model.named_modules())
        parts_of = getattr(model, "packed_modules_mapping", {})
        num_compared, differing = 0, []
        for name, sent in self._sent.items():
            copies = list(_copies(modules, parts_of, name, sent, self._columns.get(name)))
            if copies and name not in self._in_another_form:
                num_compared += 1
                if not all(torch.equal(part, sent) for part in copies):
                    differing.append(name)
        if self._num_syncs == 1:
            self._in_another_form.update(differing)
            return num_compared - len(differing)
        if differing:
            raise TrainingError(
                f"After a weight sync, {len(differing)} of {num_compared} weights in vLLM are not those of the policy: "
                f"{', '.join(differing[:NUM_SHOWN])}{', ...' * (len(differing) > NUM_SHOWN)}. vLLM would sample from "
                "another policy than the one in training. The last checkpoint is kept. r1zero does not support how "
                "this version of vLLM loads weights of this model; please report both."
            )
        return num_compared


def _copies(
    modules: dict[str, nn.Module], parts_of: dict[str, list[str]], name: str, sent: Tensor, columns: list[int] | None
) -> Iterator[Tensor]:
    """Yield that part of a weight from each copy that vLLM computes with; nothing if the weight is not found."""
    module_name, _, kind = name.rpartition(".")
    module: Any = modules.get(module_name)
    first = 0
    if module is None:  # vLLM merges some layers: q_proj, k_proj and v_proj into qkv_proj
        parent, _, last = module_name.rpartition(".")
        packed, parts = next(((p, parts) for p, parts in parts_of.items() if last in parts), ("", []))
        module = modules.get(f"{parent}.{packed}")
        sizes = getattr(module, "output_sizes", ())
        if not parts or len(sizes) != len(parts):
            return
        first = sum(sizes[: parts.index(last)])
    rows = slice(first, first + len(sent))
    weight = getattr(module, kind, None)
    if weight is None or getattr(module, "tp_size", 1) > 1:
        return
    if columns is None:
        if weight.ndim == 1:
            yield weight[rows]
        return
    if weight.ndim == 2:
        yield weight[rows, columns]
    if hasattr(module, "cpu_linear"):  # the CPU's repacked copy: W e_i is column i, without rounding
        width = getattr(module, "input_size", None) or module.embedding_dim
        inputs = nn.functional.one_hot(torch.tensor(columns), width).to(sent.dtype)
        yield module.quant_method.apply(module, inputs)[:, rows].t()
