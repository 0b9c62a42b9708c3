"""When a signal is a request to stop, and when it is a second one."""

import os
import signal

import pytest

from grpo_cli.launch import requests as requests_module
from grpo_cli.launch.requests import SAME_S, Requests, exit_status
from grpo_cli.stop import REQUESTS


@pytest.fixture
def clock(monkeypatch):
    """The seconds on the clock of requests, to be set."""
    now = [0.0]
    monkeypatch.setattr(requests_module.time, "monotonic", lambda: now[0])
    return now


def test_signals_that_come_together_are_one_request(clock):
    with Requests(REQUESTS) as requests:
        assert requests.first is None
        os.kill(os.getpid(), signal.SIGTERM)
        clock[0] = SAME_S / 2
        os.kill(os.getpid(), signal.SIGTERM)  # as `timeout` sends it, to the process and to its group
        assert requests.first is signal.SIGTERM
        assert not requests.is_repeated
        clock[0] = SAME_S + 0.1
        os.kill(os.getpid(), signal.SIGINT)
        assert requests.is_repeated
        assert requests.first is signal.SIGTERM


def test_what_was_ignored_before_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Requests(REQUESTS) as requests:
            os.kill(os.getpid(), signal.SIGHUP)
            assert requests.first is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_handlers_are_put_back():
    before = signal.getsignal(signal.SIGINT)
    with Requests(REQUESTS):
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) == before


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGUSR1, 143)],
)
def test_a_run_that_was_asked_to_stop_ends_as_a_shell_expects(number, status):
    assert exit_status(number) == status
