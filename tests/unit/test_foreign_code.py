"""No library runs code from a model, a checkpoint or the current folder."""

import ast
from pathlib import Path

import grpo_cli

PACKAGE = Path(grpo_cli.__file__).parent


def calls() -> list[tuple[str, ast.Call]]:
    """Every function call in the project, with its file and line."""
    return [
        (f"{path.relative_to(PACKAGE)}:{node.lineno}", node)
        for path in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
    ]


def keyword(call: ast.Call, name: str) -> str | None:
    return next((ast.unparse(given.value) for given in call.keywords if given.arg == name), None)


def test_no_code_of_a_model_is_run():
    trusting = []
    for place, call in calls():
        function = ast.unparse(call.func)
        is_loader = function.startswith("Auto") and function.endswith((".from_pretrained", ".from_config"))
        of_new_shape = function.endswith(".from_config") and place.startswith("data/random_base.py")
        if (is_loader or function == "LLM") and not of_new_shape and keyword(call, "trust_remote_code") != "False":
            trusting.append(place)
    assert trusting == []


def test_torch_loads_only_data():
    loads = [(place, call) for place, call in calls() if ast.unparse(call.func) == "torch.load"]
    assert loads
    assert [place for place, call in loads if keyword(call, "weights_only") != "True"] == []


def test_processes_are_started_without_the_current_folder_on_their_path():
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call | ast.List | ast.Tuple):
                words = node.args if isinstance(node, ast.Call) else node.elts
                texts = [word.value for word in words if isinstance(word, ast.Constant)]
                if "-m" in texts and ("sys.executable" in ast.unparse(node) or "WORKER" in ast.unparse(node)):
                    assert "-P" in texts, f"{path}:{node.lineno}"
