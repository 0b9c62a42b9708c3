"""No code of a model, of a checkpoint or of the current folder runs by way of a library."""

import ast
from pathlib import Path

import grpo_cli

PACKAGE = Path(grpo_cli.__file__).parent


def calls() -> list[tuple[str, ast.Call]]:
    """Every call in the project, with its place."""
    return [
        (f"{path.relative_to(PACKAGE)}:{node.lineno}", node)
        for path in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
    ]


def keyword(call: ast.Call, name: str) -> str | None:
    return next((ast.unparse(given.value) for given in call.keywords if given.arg == name), None)


def test_no_model_brings_its_own_code():
    trusting = []
    for place, call in calls():
        function = ast.unparse(call.func)
        is_loader = function.startswith("Auto") and function.endswith((".from_pretrained", ".from_config"))
        of_new_shape = function.endswith(".from_config") and place.startswith("data/random_base.py")
        if (is_loader or function == "LLM") and not of_new_shape and keyword(call, "trust_remote_code") != "False":
            trusting.append(place)
    assert trusting == []


def test_torch_loads_data_alone():
    loads = [(place, call) for place, call in calls() if ast.unparse(call.func) == "torch.load"]
    assert loads
    assert [place for place, call in loads if keyword(call, "weights_only") != "True"] == []


def test_the_current_folder_is_not_first_on_the_path_of_what_is_started():
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call | ast.List | ast.Tuple):
                words = node.args if isinstance(node, ast.Call) else node.elts
                texts = [word.value for word in words if isinstance(word, ast.Constant)]
                if "-m" in texts and ("sys.executable" in ast.unparse(node) or "WORKER" in ast.unparse(node)):
                    assert "-P" in texts, f"{path}:{node.lineno}"
