"""The services on the network: Weights & Biases and the Hugging Face Hub. Training on local files needs neither."""

from grpo_cli.config.run import LoggerConfig
from grpo_cli.config.tracker import DISABLED, tracker_mode
from grpo_cli.doctor.findings import Finding, note, ok, warning
from grpo_cli.metrics.wandb_run import wandb_login

ANSWER_S = 5.0  # time limit for a request


def check_wandb(*, connect: bool) -> Finding:
    """Whether an API key is configured and, if `connect`, whether the server accepts it."""
    mode = tracker_mode(LoggerConfig())
    if mode in ("offline", DISABLED):
        return note(f"{mode} by WANDB_MODE or WANDB_DISABLED: runs are not uploaded", "Unset it to upload them.")
    try:
        has_key = wandb_login(verify=connect)
    except Exception as error:  # W&B raises errors of many types
        return warning(
            f"cannot log in, so runs stay offline: {error}",
            "If the key is wrong, run `wandb login --relogin` or set WANDB_API_KEY. If the server cannot be reached, "
            "fix the network or WANDB_BASE_URL, or set WANDB_MODE=offline and upload later with `wandb sync`.",
        )
    if not has_key:
        return warning(
            "no API key is configured, so runs stay offline",
            "Run `wandb login`, or upload runs later with `wandb sync`.",
        )
    return ok("logged in" if connect else "an API key is configured (not checked with the server)")


def check_hub(*, connect: bool) -> Finding:
    """Whether a token is configured and, if `connect`, whether the Hub can be reached and accepts the token."""
    from huggingface_hub import constants, errors, get_session, get_token
    from huggingface_hub.utils import build_hf_headers

    limits = "Only models and data sets in the cache or in folders can be used"
    if constants.HF_HUB_OFFLINE:
        return note(f"HF_HUB_OFFLINE is set. {limits}", "Unset it to download.")
    token = "a token is configured" if get_token() else "no token; gated models need `hf auth login`"
    if not connect:
        return ok(f"{token} (not checked with the server)")
    try:
        # HfApi().whoami() has no time limit.
        answer = get_session().get(f"{constants.ENDPOINT}/api/whoami-v2", headers=build_hf_headers(), timeout=ANSWER_S)
        if answer.status_code != 401:
            answer.raise_for_status()
    except (OSError, errors.HTTPError) as error:
        return warning(
            f"{constants.ENDPOINT} cannot be reached ({error}). {limits}",
            "Fix the network or HF_ENDPOINT, or copy a cache here (HF_HOME) and set HF_HUB_OFFLINE=1.",
        )
    if answer.status_code == 401 and get_token():
        return warning(
            f"{constants.ENDPOINT} rejects the token", "Run `hf auth login` again, or set HF_TOKEN to a valid token."
        )
    return ok(f"{constants.ENDPOINT} can be reached; {token}")
