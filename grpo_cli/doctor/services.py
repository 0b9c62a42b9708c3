"""What is reached over the network: Weights & Biases and the hub. Neither is needed to train on what is here."""

import base64
import json
import netrc
import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from urllib.parse import urlsplit

from grpo_cli.doctor.findings import Finding, Level

ANSWER_S = 5.0
OFF_LINE_MODES = ("offline", "disabled", "dryrun")


def check_wandb(*, ask: bool) -> Finding:
    """Whether an API key is configured and, if `ask`, whether the server takes it."""
    if (mode := os.environ.get("WANDB_MODE")) in OFF_LINE_MODES:
        return Finding("W&B", Level.note, f"WANDB_MODE={mode}: runs are not uploaded", "Unset it to upload them.")
    server = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").rstrip("/")
    key = os.environ.get("WANDB_API_KEY") or _key_in_netrc(urlsplit(server).hostname or "")
    if not key:
        return Finding(
            "W&B",
            Level.warning,
            "no API key is configured, so runs are kept off line",
            "Run `wandb login`, or upload runs later with `wandb sync`.",
        )
    if not ask:
        return Finding("W&B", Level.ok, "an API key is configured (the server was not asked)")
    login = base64.b64encode(f"api:{key}".encode()).decode()
    query = json.dumps({"query": "query Viewer { viewer { id } }"}).encode()
    headers = {"Authorization": f"Basic {login}", "Content-Type": "application/json"}
    try:
        status, body = _answer(f"{server}/graphql", headers, query)
    except (OSError, HTTPException, ValueError) as error:
        return Finding(
            "W&B",
            Level.warning,
            f"{server} cannot be reached ({error}), so runs are kept off line",
            "Mend the network or WANDB_BASE_URL, or set WANDB_MODE=offline and upload later with `wandb sync`.",
        )
    if status != 200 or b'"id"' not in body:
        return Finding(
            "W&B",
            Level.warning,
            f"{server} does not take the API key (HTTP {status}), so runs are kept off line",
            "Run `wandb login --relogin`, or set WANDB_API_KEY to a key of yours.",
        )
    return Finding("W&B", Level.ok, f"logged in at {server}")


def check_hub(*, ask: bool) -> Finding:
    """Whether models and data sets can be downloaded, and a token is taken, if `ask`."""
    from huggingface_hub import constants, get_token

    without = "Only models and data sets in the cache or in folders can be used"
    if constants.HF_HUB_OFFLINE:
        return Finding("hub", Level.note, f"HF_HUB_OFFLINE is set. {without}", "Unset it to download.")
    token = get_token()
    held = "a token is configured" if token else "without a token; gated models need `hf auth login`"
    if not ask:
        return Finding("hub", Level.ok, f"not asked; {held}")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        status, _ = _answer(f"{constants.ENDPOINT}/api/whoami-v2", headers)
    except (OSError, HTTPException, ValueError) as error:
        status, reason = None, str(error)
    else:
        reason = f"HTTP {status}"
    if status is None or (status != 200 and status != 401):
        return Finding(
            "hub",
            Level.warning,
            f"{constants.ENDPOINT} cannot be reached ({reason}). {without}",
            "Mend the network or HF_ENDPOINT, or bring along a cache (HF_HOME) and set HF_HUB_OFFLINE=1.",
        )
    if token and status == 401:
        mend = "Log in anew with `hf auth login`, or set HF_TOKEN to a token of yours."
        return Finding("hub", Level.warning, f"{constants.ENDPOINT} does not take the token", mend)
    return Finding("hub", Level.ok, f"{constants.ENDPOINT} answers; {held}")


def _key_in_netrc(host: str) -> str | None:
    try:
        login = netrc.netrc(os.environ.get("NETRC")).authenticators(host)
    except (OSError, netrc.NetrcParseError):
        return None
    return login[2] if login else None


def _answer(url: str, headers: Mapping[str, str], body: bytes | None = None) -> tuple[int, bytes]:
    """The status and the body of an answer, whatever it says."""
    request = urllib.request.Request(url, body, {"User-Agent": "r1zero", **headers})
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:
            return answer.status, answer.read(2**16)
    except urllib.error.HTTPError as error:
        return error.code, b""
