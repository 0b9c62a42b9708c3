"""The loop: prompts -> rollout groups -> scores -> advantages -> minibatches -> update -> weight sync."""

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TextIO

from grpo_cli import stop
from grpo_cli.choices import KLPlacement
from grpo_cli.config.train import TrainConfig
from grpo_cli.data.benchmarks import load_benchmark
from grpo_cli.data.pass_rates import Curriculum
from grpo_cli.data.problems import load_problem_set
from grpo_cli.data.sampler import EpochSampler
from grpo_cli.data.templates import render
from grpo_cli.evaluation.chosen_problems import usable_prompts
from grpo_cli.evaluation.live import LiveEvaluation
from grpo_cli.metrics.clock import Clock
from grpo_cli.metrics.metrics import Tally
from grpo_cli.metrics.performance import find_peak, peak_memory_gib
from grpo_cli.model import load_base_model
from grpo_cli.progress import progress, stage
from grpo_cli.ranks import rank
from grpo_cli.reward.reward import Reward
from grpo_cli.rollout.in_flight import InFlight, LearnerAndRollouts
from grpo_cli.rollout.link import join_roles
from grpo_cli.rollout.remote_engine import RemoteEngine, serve
from grpo_cli.rollout.replay import step_rollout
from grpo_cli.rollout.restart import remote_engines
from grpo_cli.rollout.vllm_engine import RolloutEngine
from grpo_cli.screen import Screen
from grpo_cli.training.advantages import advantage_tally, rollout_advantages, selected_responses
from grpo_cli.training.batch import make_minibatches
from grpo_cli.training.checkpoint import Checkpoints, Learner
from grpo_cli.training.critic import PolicyAndCritic, rl_critic, valued_minibatches
from grpo_cli.training.engine import init_distributed
from grpo_cli.training.kept import first_groups, first_values
from grpo_cli.training.loop import conclude, finish_run, finish_step, heldout_groups, open_log, say
from grpo_cli.training.mismatch import check_mismatch, mismatch_limit, rollout_limit
from grpo_cli.training.network import check_family
from grpo_cli.training.policies import load_teacher, rl_policy
from grpo_cli.training.weight_sync import check_sampler, sync_weights
from grpo_cli.types import Sampling


def train(config: TrainConfig, terminal: TextIO) -> None:
    """Run `config` on this rank. Rank 0 writes metrics, groups and results; every rank its part of checkpoints."""
    run_dir = Path(config.run.dir)
    link = join_roles(config.cluster, restarts_engines=config.rollout.restart_engines)
    if link and link.generates:
        return serve(link, load_base_model(config.model, config.rollout.longest_sequence), config.cluster)
    init_distributed(config.cluster)
    console = Screen(file=terminal, quiet=rank() != 0)
    with stage(console, f"loading {config.model.name} and {config.data.name}"):
        model = load_base_model(config.model, config.rollout.longest_sequence)
        check_family(model, config.cluster)
        teacher = load_teacher(model, config)
        problems = load_problem_set(config.data, config.seed)
        train_prompts, heldout_prompts = (
            usable_prompts(split, model, config, console) for split in (problems.train, problems.heldout)
        )
        benchmarks = {
            name: render(load_benchmark(name, benchmark), config.template, model.tokenizer)
            for name, benchmark in config.benchmark.items()
        }
    sampler = EpochSampler(train_prompts, config.seed, Curriculum.of(config.data.curriculum))
    checkpoints = Checkpoints(config, "train", partial(say, console))
    peak = find_peak(model.folder, config)
    limit = mismatch_limit(config.cluster.dtype, config.rollout.mismatch_limit)

    with ExitStack() as stack:
        reward = stack.enter_context(
            Reward(config.reward, config.template, config.rollout.max_new_tokens, config.cluster.device)
        )
        with stage(console, "starting vLLM"):
            engine: RolloutEngine | RemoteEngine
            if link:
                engine = stack.enter_context(remote_engines(link))
            else:
                engine = RolloutEngine(model, config.cluster, for_training=True)
        is_stale = config.rollout.max_staleness > 0 and config.replay is None
        in_flight = InFlight(engine, reward, sampler, config) if is_stale else None
        with engine.asleep(), stage(console, "building DeepSpeed"):
            policy, critic = rl_policy(model, config, teacher), rl_critic(model, config)
            learner: Learner = PolicyAndCritic(policy, critic) if critic else policy
            learner = LearnerAndRollouts(learner, in_flight) if in_flight else learner
            start_step = checkpoints.load_latest(learner, sampler)
        if policy.note:
            say(console, policy.note)
        sync_weights(policy, engine)
        log = open_log(stack, config, config.steps, start_step, console, rollout_limit(config))
        evaluate = LiveEvaluation(engine, reward, heldout_prompts, benchmarks, config, model.max_model_len, console)

        stack.enter_context(checkpoints.advice())
        stopped_after = None
        if start_step == 0:
            say(console, "evaluating before training")
            evaluation = evaluate(_sampling(config, step=1))
            log(0, evaluation.metrics, heldout_groups(0, evaluation))
        stop.listen()
        for step in range(start_step + 1, config.steps + 1):
            clock = Clock()
            sampling = _sampling(config, step)
            with progress(console, f"step {step}: sampling"):
                rollout = step_rollout(engine, reward, sampler, sampling, config, step=step, in_flight=in_flight)
            if in_flight and step < config.steps:
                in_flight.start(_sampling(config, step + 1), step + 1)
            with clock.phase("update"), engine.asleep(), progress(console, f"step {step}: updating"):
                selected_PG = selected_responses(rollout, config.algorithm)
                in_reward = config.algorithm.beta > 0 and config.algorithm.kl.placement != KLPlacement.loss
                kl = policy.token_kl(rollout.groups) if in_reward else None
                values = critic.values(rollout.groups) if critic else None
                advantages = rollout_advantages(rollout, selected_PG, kl, config.algorithm, values)
                token_values = first_values(rollout, config.logger, policy, model.tokenizer)
                learns_PG = selected_PG & (critic is None or step > critic.warmup_steps)
                minibatches = make_minibatches(
                    rollout, advantages, learns_PG, config.algorithm, sampling.max_new_tokens
                )
                update = Tally()
                if critic and values is not None:  # first, so that both need not be on the GPU at the same time
                    update = critic.update(valued_minibatches(rollout, selected_PG, values, kl, config.algorithm))
                update = update.merge(policy.update(minibatches))
                groups = first_groups(step, rollout, advantages, config.logger, policy, token_values)
                update.max("perf/peak_memory_gib", peak_memory_gib())
            if in_flight:
                with clock.phase("wait"):
                    in_flight.wait()
            with clock.phase("sync"):
                num_compared = sync_weights(policy, engine)
                if step == start_step + 1:
                    check_sampler(policy, engine, heldout_prompts, limit)
            tally = rollout.tally().merge(update).merge(advantage_tally(advantages))
            tally.max("sampler/weights_checked", num_compared)
            tally.max("perf/peak_memory_gib", peak_memory_gib())
            must_stop = finish_step(
                step,
                config.steps,
                tally,
                clock,
                eval_every=config.eval.every_steps,
                evaluate=partial(evaluate, sampling),
                log=log,
                checkpoints=checkpoints,
                learner=learner,
                sampler=sampler,
                console=console,
                peak=peak,
                groups=groups,
                check=partial(check_mismatch, limit=rollout_limit(config)),
            )
            if must_stop:
                stopped_after = step
                break
        finish_run(run_dir, stopped_after, console)

    if rank() == 0:
        conclude(run_dir, config.steps, console)


def _sampling(config: TrainConfig, step: int) -> Sampling:
    """How the responses of this step are sampled."""
    rollout, algorithm = config.rollout, config.algorithm
    optimizer_steps_done = (step - 1) * algorithm.num_minibatches * algorithm.num_epochs
    max_new_tokens = rollout.max_new_tokens_at(optimizer_steps_done)
    stop = tuple(config.template.stop)
    return Sampling(rollout.temperature, rollout.top_p, max_new_tokens, stop, rollout.largest_support)
