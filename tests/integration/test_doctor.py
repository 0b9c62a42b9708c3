"""`r1zero doctor` on this machine, which can train."""

import json


def test_this_machine_can_train_and_both_engines_work(tmp_path, r1zero_process):
    done = r1zero_process("doctor", "--json", cwd=tmp_path)
    findings = {finding["about"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert done.returncode == 0, done.stdout
    assert findings["vLLM"]["seen"].startswith("a model with 151,669 tokens answers 64 prompts on")
    assert findings["DeepSpeed"]["seen"].startswith("a model with 151,669 tokens takes a step on")
    assert findings["vLLM"]["level"] == findings["DeepSpeed"]["level"] == "ok"
    assert list(tmp_path.iterdir()) == []
