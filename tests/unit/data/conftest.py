"""Fixtures for the data tests: a hub on loopback, a tokenizer, and the configs of conf/."""

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest
from omegaconf import OmegaConf

CONF = Path(__file__).parents[3] / "conf"
COMMIT = "c" * 40


@pytest.fixture
def conf():
    """A function that loads a typed config from conf/, such as conf("data/gsm8k", DataConfig)."""

    def load(name: str, schema: type, **changes):
        group = name.split("/")[0]
        merged = OmegaConf.merge(OmegaConf.structured(schema), OmegaConf.load(CONF / f"{name}.yaml"))
        composed = OmegaConf.create({group: merged})
        for key, value in changes.items():
            OmegaConf.update(composed, f"{group}.{key}", value)
        return OmegaConf.to_object(composed[group])

    return load


@pytest.fixture
def tokenizer():
    """A byte-level tokenizer with one token per byte. `<bos>` and `<eos>` are special; `<bos>` starts each text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({token: i for i, token in enumerate(["<bos>", "<eos>", *alphabet])}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<bos>", eos_token="<eos>")


class Hub:
    """The files of each data set on the hub, by name; with `broken`, every request gets status 503."""

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.broken = False


@pytest.fixture
def hub(monkeypatch, tmp_path) -> Iterator[Hub]:
    """A stand-in for the Hugging Face hub, just enough to load a data set, with empty caches."""
    import datasets
    from huggingface_hub import constants

    stored = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(stored))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", endpoint)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    yield stored
    server.shutdown()
    server.server_close()


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            # [api/]datasets/<owner>/<name>[/<what>/<revision>/<path>]
            url = unquote(urlparse(self.path).path).strip("/").removeprefix("api/")
            _, owner, name, what, revision, path = (url.split("/", 5) + [""] * 5)[:6]
            files = hub.files.get(f"{owner}/{name}")
            if hub.broken:
                self.answer(503)
            elif files is None:
                self.answer(404, error="RepoNotFound")
            elif revision not in ("", "main", COMMIT):
                self.answer(404, error="RevisionNotFound")
            elif what == "tree":
                entries = _entries(files, f"{path}/" if path else "")
                self.answer(200 if entries else 404, entries or {}, error="EntryNotFound")
            elif what == "resolve":
                self.answer(200 if path in files else 404, files.get(path, b""), error="EntryNotFound")
            else:
                self.answer(200, {"id": f"{owner}/{name}", "sha": COMMIT, "siblings": []})

        do_HEAD = do_GET

        def answer(self, status: int, content: bytes | list | dict = b"", error: str = "") -> None:
            body = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
            if status == 404:
                self.send_header("X-Error-Code", error)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *_) -> None:
            pass

    return Handler


def _entries(files: dict[str, bytes], folder: str) -> list[dict]:
    """The direct children of the folder: files and folders."""
    inside = [name.removeprefix(folder) for name in files if name.startswith(folder)]
    folders = {name.split("/")[0] for name in inside if "/" in name}
    return [{"type": "directory", "path": folder + name, "oid": COMMIT} for name in sorted(folders)] + [
        {"type": "file", "path": folder + name, "oid": COMMIT, "size": len(files[folder + name])}
        for name in inside
        if "/" not in name
    ]
