"""Whether vLLM holds the weights that it was sent.

A sync that fails in silence does not show in log-probabilities while weights move slowly: in bf16 at a learning rate
of 1e-6 most of them stay as they are for many steps.
"""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from grpo_cli.errors import TrainingError

NUM_COLUMNS = 2  # of each matrix, other ones at each sync
NUM_SHOWN = 3


class WeightCheck:
    """Keeps a part of each weight that is sent, and compares it with what vLLM computes with.

    Vectors are compared whole, of matrices a few columns. What vLLM holds in another form (experts of one layer
    merged, weights split over ranks) is left out.
    """

    def __init__(self) -> None:
        self._sent: dict[str, Tensor] = {}
        self._columns: dict[str, list[int]] = {}
        self._num_syncs = 0
        self._in_another_form: set[str] = set()

    def watched(self, weights: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        """The (Hugging Face name, tensor) pairs as they come; a part of each is kept."""
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

        Raises TrainingError where some differ. Those that differ after the first sync are held in another form: had
        they not arrived, vLLM would sample with the random weights it started with, which the comparison of
        log-probabilities shows.
        """
        modules = dict(model.named_modules())
        parts_of = getattr(model, "packed_modules_mapping", {})
        num_compared, differing = 0, []
        for name, sent in self._sent.items():
            held = list(_held(modules, parts_of, name, sent, self._columns.get(name)))
            if held and name not in self._in_another_form:
                num_compared += 1
                if not all(torch.equal(part, sent) for part in held):
                    differing.append(name)
        if self._num_syncs == 1:
            self._in_another_form.update(differing)
            return num_compared - len(differing)
        if differing:
            raise TrainingError(
                f"After a weight sync, {len(differing)} of {num_compared} weights in vLLM are not those of the policy: "
                f"{', '.join(differing[:NUM_SHOWN])}{', ...' * (len(differing) > NUM_SHOWN)}. vLLM would sample from "
                "another policy than the one that learns. The last checkpoint is kept. This model or this version of "
                "vLLM takes weights in a way that r1zero does not know; please report both."
            )
        return num_compared


def _held(
    modules: dict[str, nn.Module], parts_of: dict[str, list[str]], name: str, sent: Tensor, columns: list[int] | None
) -> Iterator[Tensor]:
    """That part of a weight as vLLM holds it, once for each copy that it computes with; nothing where it is unknown."""
    module_name, _, kind = name.rpartition(".")
    module, first = modules.get(module_name), 0
    if module is None:  # vLLM computes several layers as one: q_proj, k_proj and v_proj as qkv_proj
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
    if hasattr(module, "cpu_linear"):  # on a CPU it computes with a repacked copy: W e_i is column i, without rounding
        width = getattr(module, "input_size", None) or module.embedding_dim
        inputs = nn.functional.one_hot(torch.tensor(columns), width).to(sent.dtype)
        yield module.quant_method.apply(module, inputs)[:, rows].t()
