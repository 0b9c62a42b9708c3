"""vLLM in the same process as the trainer. The only module that imports vllm."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from torch import nn
from vllm import LLM, SamplingParams
from vllm.distributed import get_tp_group
from vllm.distributed.device_communicators.cpu_communicator import _CPUSHMDistributed
from vllm.logprobs import FlatLogprobs
from vllm.outputs import CompletionOutput
from vllm.sampling_params import RequestOutputKind

from grpo_cli.choices import Device, DType
from grpo_cli.config.cluster import ClusterConfig
from grpo_cli.config.sampling import MAX_TOP_K
from grpo_cli.errors import SetupError, TrainingError
from grpo_cli.model import BaseModel
from grpo_cli.paths import plain_name
from grpo_cli.ranks import gather, rank
from grpo_cli.rollout.class_snapshot import ClassSnapshot
from grpo_cli.rollout.experts import check_experts, forget_packed_experts
from grpo_cli.rollout.segments import joined, num_to_sample
from grpo_cli.rollout.support import packed
from grpo_cli.rollout.text import shown_special_ids, text_after, until_stop
from grpo_cli.rollout.weight_check import WeightCheck
from grpo_cli.types import Completion, Request, Sampling

_KEPT: list[LLM] = []  # until the process ends: deleting an engine would destroy the process group
HEAD = "lm_head.weight"  # sent even if it is tied: on a CPU, vLLM computes with a packed copy of it
MAX_TIES = 32  # vLLM's top_k keeps all ids with the same logit as the last one; a support has at most so many of them
DTYPES = {DType.fp32: "float32", DType.bf16: "bfloat16"}


class RolloutEngine:
    """A vLLM engine with the current policy: one on each rank, or one for `tensor_parallel_size` ranks."""

    def __init__(self, model: BaseModel, cluster: ClusterConfig, *, for_training: bool = False):
        """With `for_training`, the engine can sleep while the trainer works. It then does not read the weights in the
        model's folder, so call `load_weights` before `generate`.
        """
        self._tensor_parallel_size = cluster.vllm.tensor_parallel_size
        self._sleep_level = cluster.vllm.sleep_level if for_training and cluster.device == Device.cuda else 0
        self._on_cpu = on_cpu = cluster.device == Device.cpu
        memory = (
            {"kv_cache_memory_bytes": int(cluster.vllm.kv_cache_gib * 2**30)}
            if on_cpu
            else {"gpu_memory_utilization": cluster.vllm.gpu_memory_utilization}
        )
        decoder_class = ClassSnapshot(model.folder)
        shared_memory = _name_shared_memory(self._tensor_parallel_size) if on_cpu else None
        try:
            with plain_name(model.folder) as folder:
                self._llm = LLM(
                    model=folder,
                    trust_remote_code=False,
                    dtype=DTYPES[cluster.dtype],  # "auto" would silently turn an fp32 model into bf16 on a CPU
                    max_model_len=model.max_model_len,
                    max_num_seqs=cluster.vllm.max_num_seqs,
                    enforce_eager=cluster.vllm.enforce_eager,
                    enable_prefix_caching=not on_cpu,  # helps if a group shares a long prompt
                    # For a prompt that is split over two steps, vLLM rewinds the request's seeded generator, which a
                    # CPU generator cannot do. So do not split prompts there.
                    enable_chunked_prefill=not on_cpu,
                    load_format="dummy" if for_training else "auto",
                    enable_sleep_mode=self._sleep_level > 0,
                    sleep_mode_offload_cudagraph=self._sleep_level > 0,
                    distributed_executor_backend="external_launcher",  # in the rank's own process
                    tensor_parallel_size=self._tensor_parallel_size,
                    logprobs_mode="processed_logprobs",  # at the sampling temperature, after top_k and top_p
                    max_logprobs=MAX_TOP_K + MAX_TIES,
                    **memory,
                )
        except (AssertionError, AttributeError, KeyError, NotImplementedError, ValueError) as error:
            raise SetupError(f"vLLM cannot run {model.folder} with these settings: {error or type(error)}") from error
        if shared_memory:  # all ranks have opened it; without a name, it is freed when they end, even if killed
            for file in Path("/dev/shm").glob(f"*{shared_memory}*"):
                file.unlink(missing_ok=True)
        self._llm.apply_model(decoder_class.restore)
        self._llm.apply_model(partial(exclude_padding, vocab_size=model.vocab_size))
        self._llm.llm_engine.output_processor.tokenizer = (
            model.tokenizer
        )  # vLLM's tokenizer may drop spaces: see model.py
        _KEPT.append(self._llm)
        self._tokenizer = model.tokenizer
        self._end_token_ids = model.end_token_ids
        self._vocab_size = model.vocab_size
        self._weight_check = WeightCheck()

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[tuple[int, Completion]]:
        """Yield (index of the request, its completion) as soon as each is complete, in any order.

        All ranks that share an engine must call it; each gets the completions of its own requests.
        """
        engine = self._llm.llm_engine
        shared, first = self._shared(requests)
        shown = shown_special_ids(self._tokenizer, sampling.stop)
        for index, request in enumerate(shared):
            known = request.prefix.token_ids if request.prefix else ()
            prompt = {"prompt_token_ids": [*request.token_ids, *known]}
            engine.add_request(str(index), prompt, self._params(request, sampling, shown))
        for state in engine.output_processor.request_states.values():
            state.logprobs_processor.tokenizer = None  # otherwise it decodes each token again for its log-probability
            if sampling.top_k:
                state.logprobs_processor.logprobs = LogprobsWithSupport()
        while engine.has_unfinished_requests():
            for output in engine.step():
                index = int(output.request_id) - first
                if output.finished and 0 <= index < len(requests):
                    yield index, self._completion(requests[index], output.outputs[0], sampling.stop, shown)

    def _params(self, request: Request, sampling: Sampling, shown: Collection[int]) -> SamplingParams:
        return SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            max_tokens=num_to_sample(request, sampling),
            stop=list(sampling.stop),
            include_stop_str_in_output=True,
            stop_token_ids=list(self._end_token_ids),
            skip_special_tokens=not shown,
            detokenize=bool(sampling.stop),  # with stop strings, while generating; otherwise once, in `_completion`
            seed=request.seed,
            logprobs=min(sampling.top_k + MAX_TIES, self._vocab_size) if sampling.top_k else 0,
            flat_logprobs=True,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )

    def _completion(
        self, request: Request, output: CompletionOutput, stop: Sequence[str], shown: Collection[int]
    ) -> Completion:
        assert len(output.logprobs.logprobs) == len(output.token_ids)
        text = output.text  # with `shown`, it contains all special tokens
        if request.prefix is None and (shown or not text):  # otherwise `joined` decodes the whole response
            text = until_stop(text_after(self._tokenizer, request.token_ids, output.token_ids, shown), stop)
        completion = Completion(
            token_ids=tuple(output.token_ids),
            logprobs=tuple(output.logprobs.logprobs),
            text=text,
            truncated=output.finish_reason == "length",
            support=tuple(output.logprobs.support) if isinstance(output.logprobs, LogprobsWithSupport) else None,
        )
        if request.prefix is None:
            return completion
        decode = partial(text_after, self._tokenizer, request.token_ids, shown=shown)
        return joined(request.prefix, completion, decode, stop)

    def _shared(self, requests: Sequence[Request]) -> tuple[Sequence[Request], int]:
        """The requests of all ranks that share this engine, and the index of this rank's first one."""
        if self._tensor_parallel_size == 1:
            return requests, 0
        group = get_tp_group()
        of_ranks = gather(list(requests), group.cpu_group)
        before = of_ranks[: group.rank_in_group]
        return [request for of_rank in of_ranks for request in of_rank], sum(map(len, before))

    def sleep(self) -> None:
        """Free the GPU's memory for the trainer."""
        if self._sleep_level:
            self._llm.sleep(level=self._sleep_level)

    def wake(self) -> None:
        """Allocate the memory of the weights again, but not yet of the KV cache."""
        if self._sleep_level:
            self._llm.wake_up(tags=["weights"])

    @contextmanager
    def asleep(self) -> Iterator[None]:
        self.sleep()
        yield
        self.wake()

    @contextmanager
    def awake(self) -> Iterator[None]:
        self.wake()
        yield
        self.sleep()

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> int:
        """Replace every weight with the (Hugging Face name, tensor) pairs. Call `open_cache` afterwards.

        Returns how many weights were compared with what was sent. Raises TrainingError if vLLM does not know a weight,
        or if one did not arrive.
        """
        (has_head,) = self._llm.apply_model(lambda network: hasattr(network, HEAD.partition(".")[0]))
        known = self._weight_check.watched(pair for pair in weights if pair[0] != HEAD or has_head)
        if self._on_cpu:
            self._llm.apply_model(forget_packed_experts)
        try:
            self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": known})
        except (ValueError, KeyError) as error:
            raise TrainingError(
                f"vLLM does not load this model's weights under the names that its files have: {error}\nIts family "
                "cannot be trained with this version of vLLM: docs/families.md lists those that were tested."
            ) from error
        if self._on_cpu:
            self._llm.apply_model(check_experts)
        (num_compared,) = self._llm.apply_model(self._weight_check.compare)
        return num_compared

    def open_cache(self) -> None:
        """Allocate the KV cache again, and clear what was computed with the old weights."""
        if self._sleep_level:
            self._llm.wake_up(tags=["kv_cache"])
        self._llm.reset_prefix_cache()


class LogprobsWithSupport(FlatLogprobs):
    """A response's log-probabilities and support, in place of vLLM's record of every likely id at every token."""

    def __init__(self) -> None:
        super().__init__()
        self.support: list[bytes] = []

    def append_fast(self, token_ids: list[int], logprobs: list[float], *ranks_and_texts: Iterable) -> None:
        self.support.append(packed(token_ids, logprobs))
        super().append_fast(token_ids[:1], logprobs[:1], *ranks_and_texts)


def _name_shared_memory(tensor_parallel_size: int) -> str | None:
    """A unique part for the names of the memory that the ranks of an engine share on a CPU; None if nothing is shared.

    vLLM uses the same names for all runs on a machine, and cannot create memory under a name that exists. So a second
    run, or a run after one that was killed, could not start.
    """
    if tensor_parallel_size == 1:
        return None
    mark = gather(uuid4().hex)[rank() // tensor_parallel_size * tensor_parallel_size]
    make_group_name = _CPUSHMDistributed.make_group_name
    _CPUSHMDistributed.make_group_name = staticmethod(lambda communicator: f"{make_group_name(communicator)}-{mark}")
    return mark


def exclude_padding(network: nn.Module, vocab_size: int) -> None:
    """Never sample ids that only pad the embedding beyond the tokenizer's vocabulary.

    Not a logits processor: vLLM has two interfaces for them, and neither works with speculative decoding.
    """
    compute_logits = network.compute_logits

    def compute_masked_logits(*args: Any, **kwargs: Any) -> torch.Tensor:
        logits = compute_logits(*args, **kwargs)
        logits[:, vocab_size:] = float("-inf")
        return logits

    network.compute_logits = compute_masked_logits
