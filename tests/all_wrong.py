"""A reward for tests of rollouts: every response is wrong."""

from concurrent.futures import Future

from grpo_cli.types import Score, Verdict


class AllWrong:
    def submit(self, problem, completion, *, step, max_new_tokens):
        future = Future()
        future.set_result(Score(0.0, {}, Verdict.wrong, None))
        return future
