"""More than a hundred attacks on the sandbox and its verdicts (sandbox_cases.md), and honest code that must pass.

An attack fails if it passes no test, ends in time and leaves nothing behind. If it is harmless, a second test shows
that the attack works without a sandbox or without a separate judge.
"""

import ast
import json
import os
import platform
import re
import secrets
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from grpo_cli.choices import Sandbox
from grpo_cli.errors import SetupError
from grpo_cli.sandbox import CodeGrade, check_sandbox, grade_code, syscall_filter
from grpo_cli.types import Verdict


@pytest.fixture(scope="module", autouse=True)
def bubblewrap():
    try:
        check_sandbox(Sandbox.bwrap)
    except SetupError as error:
        pytest.skip(str(error))


# The tested code cannot derive the answers, 1009 and 2027, from anything that it sees.
CALLS = json.dumps({"fn_name": "solve", "inputs": [[2], [3]], "outputs": [1009, 2027]})
PROGRAM = json.dumps({"inputs": ["2\n", "3\n"], "outputs": ["1009\n", "2027\n"]})
ASSERTS = "assert solve(2) == 1009\nassert solve(3) == 2027"
TRUTHS = "assert all(x == 1009 for x in map(solve, [2]))\nassert solve(3) == 2027 and len(str(solve(3))) == 4"
CHECK_CODE = "def check(candidate):\n    assert candidate(2) == 1009\n    assert candidate(3) == 2027"
CHECK = json.dumps({"tests": CHECK_CODE, "entry_point": "solve"})
TESTS = {"calls": CALLS, "program": PROGRAM, "asserts": ASSERTS, "truths": TRUTHS, "check": CHECK}


def grade(code: str, tests: str, **options: object) -> CodeGrade:
    return grade_code(tests, f"```python\n{code}\n```", **options)


def chapter(name):
    """The tests and the code of each case in a chapter of sandbox_cases.md."""
    text = Path(__file__).with_name("sandbox_cases.md").read_text()
    start, *cases = text.split(f"\n# {name}\n")[1].split("\n# ")[0].split("\n## ")
    params = []
    for case in cases:
        title, tests_name = re.match(r"(.*?)(?: \((\w+)\))?\n", case).groups()
        tests = TESTS[tests_name] if tests_name else block(case, "tests")
        params.append(pytest.param(tests, f"{block(start, 'python')}\n{block(case, 'python')}", id=title))
    return params


def block(text, language):
    found = re.search(rf"^```{language}\n(.*?)\n```", text, re.MULTILINE | re.DOTALL)
    return found[1] if found else ""


@pytest.mark.parametrize(("tests", "code"), [*chapter("Crude forgeries"), *chapter("Forgeries")])
def test_a_forged_verdict_is_rejected(tests, code):
    forged = grade(code, tests)
    assert forged.verdict != Verdict.correct
    assert forged.passed == 0
    assert forged.reason


@pytest.mark.parametrize(("tests", "code"), chapter("Crude forgeries"))
def test_a_crude_forgery_fools_a_harness_with_a_single_process(tests, code, tmp_path):
    tests = tests.replace(CHECK, f"{CHECK_CODE}\ncheck(solve)")
    harness = subprocess.run([sys.executable, "-c", f"{code}\n{tests}"], cwd=tmp_path, timeout=5)
    assert harness.returncode == 0


TOKEN = f"TOKEN_{secrets.token_hex(16)}"


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    """Targets outside the box. @NAME@ in an attack is replaced by the target of that name."""
    folder = tmp_path_factory.mktemp("host")
    (folder / "secret").write_text(TOKEN)
    bystander = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)", TOKEN], env={"API_KEY": TOKEN}, start_new_session=True
    )
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", 0))
    tcp, abstract, named = (
        socket.create_server(("127.0.0.1", 0)),
        socket.socket(socket.AF_UNIX),
        socket.socket(socket.AF_UNIX),
    )
    abstract.bind(f"\0{TOKEN}")
    named.bind(str(folder / "socket"))

    def serve(server):
        while True:
            with server.accept()[0] as connection:
                connection.sendall(TOKEN.encode())

    def serve_udp():
        while True:
            udp.sendto(TOKEN.encode(), udp.recvfrom(99)[1])

    for server in (tcp, abstract, named):
        server.listen()
        threading.Thread(target=serve, args=[server], daemon=True).start()
    threading.Thread(target=serve_udp, daemon=True).start()
    yield {
        "FOLDER": folder,
        "BYSTANDER": bystander.pid,
        "JUDGE": os.getpid(),
        "TCP": tcp.getsockname()[1],
        "UDP": udp.getsockname()[1],
        "ABSTRACT": f"\\0{TOKEN}",
    }
    assert bystander.poll() is None, "an attack ended a process outside"
    bystander.kill()
    bystander.wait()


def with_targets(code, host):
    return re.sub("@([A-Z]+)@", lambda name: str(host[name[1]]), code)


@pytest.mark.parametrize(("tests", "code"), chapter("Leaks"))
@pytest.mark.parametrize(("kind", "verdict"), [(Sandbox.bwrap, Verdict.wrong), (Sandbox.none, Verdict.correct)])
def test_nothing_outside_can_be_read(tests, code, kind, verdict, host):
    tests = json.dumps({"fn_name": "solve", "inputs": [[]], "outputs": [TOKEN]})
    assert grade(with_targets(code, host), tests, sandbox=kind).verdict == verdict


READ = "def solve():\n    open({!r}, 'rb').read(1)\n    return 'escaped'"
WRITE = "import os, sys\ndef solve():\n    open(os.path.join({}, 'box_probe'), 'w')\n    return 'escaped'"
SOCKET = "import socket\ndef solve():\n    socket.socket(*{})\n    return 'escaped'"
SYSTEM_CALL = "import ctypes\ndef solve():\n    return 'escaped' if ctypes.CDLL(None).syscall({}, {}) >= 0 else ''"
UNREADABLE = [
    "/etc/passwd",
    "/etc/shadow",
    "/proc/kcore",
    "/dev/mem",
    "/dev/kmsg",
    "/proc/@JUDGE@/maps",
    "/proc/1/mem",
    __file__,
]
UNWRITABLE = [
    "'/'",
    "'/usr/bin'",
    "'/etc'",
    "'/dev'",
    "'/dev/shm'",
    "'/proc/sys'",
    "'@FOLDER@'",
    "sys.prefix",
    "sys.path[0]",
]
# INET, INET6, NETLINK, PACKET, ALG and VSOCK
SOCKETS = [(2, 1), (10, 1), (16, 3), (17, 3), (38, 5), (40, 1)]
ARGUMENTS = {
    "shmget": "0, 1 << 20, 0o1600",
    "semget": "0, 1, 0o1600",
    "msgget": "0, 0o1600",
    "memfd_create": "b'name', 0",
    "io_setup": "1, ctypes.byref(ctypes.c_long())",
    "clone": "0x10000011, 0, 0, 0, 0",
    "unshare": "0x10000000",
    "add_key": "b'user', b'name', b'key', 3, -2",
    "keyctl": "0, -3, 1",
    "io_uring_setup": "1, ctypes.create_string_buffer(120)",
    "syslog": "10, None, 0",
}


def simple_breakouts():
    for path in UNREADABLE:
        yield pytest.param("", READ.format(path), id=f"reading {path}")
    for path in UNWRITABLE:
        yield pytest.param("", WRITE.format(path), id=f"writing to {path}")
    for kind in SOCKETS:
        yield pytest.param("", SOCKET.format(kind), id=f"a socket of kind {kind}")
    for name, numbers in {**syscall_filter.FORBIDDEN, "clone": syscall_filter.CLONE}.items():
        number = numbers[platform.machine() == "aarch64"]
        yield pytest.param(
            "", SYSTEM_CALL.format(number, ARGUMENTS.get(name, "0, 0, 0, 0, 0")), id=f"the system call {name}"
        )


@pytest.mark.parametrize(("tests", "code"), [*chapter("Breakouts"), *simple_breakouts()])
def test_code_cannot_break_out(tests, code, host):
    tests = json.dumps({"fn_name": "solve", "inputs": [[]], "outputs": ["escaped"]})
    before = sorted(host["FOLDER"].iterdir())
    assert grade(with_targets(code, host), tests).verdict == Verdict.wrong
    assert sorted(host["FOLDER"].iterdir()) == before


@pytest.mark.parametrize(("tests", "code"), chapter("Endless"))
def test_code_that_never_ends_is_stopped(tests, code):
    start = time.monotonic()
    assert grade(code, tests.replace("@LONG@", "x" * 3_000_000), timeout_s=0.5)[:2] == (Verdict.timeout, 0)
    assert time.monotonic() - start < 20


@pytest.fixture
def usual_recursion_limit():
    """Python's default limit. Libraries that other tests import raise it; deeply nested values are then compared."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(1000)
    yield
    sys.setrecursionlimit(before)


@pytest.mark.usefixtures("usual_recursion_limit")
@pytest.mark.parametrize(("tests", "code"), chapter("Bombs"))
def test_a_bomb_does_no_harm(tests, code):
    start = time.monotonic()
    bombed = grade(code, tests.replace("@NESTED@", "[" * 600 + "]" * 600), timeout_s=1, memory_mib=128)
    assert bombed.verdict in (Verdict.wrong, Verdict.timeout)
    assert bombed.passed == 0
    assert time.monotonic() - start < 20


@pytest.mark.parametrize(("tests", "code"), chapter("Limits"))
def test_each_limit_is_exactly_as_set(tests, code):
    graded = grade(code, tests, memory_mib=128, max_processes=6, output_mib=2)
    assert graded.verdict == Verdict.correct, graded.reason


def test_no_process_outlives_its_box():
    marker = f"TOKEN_{secrets.token_hex(16)}"
    code = f"""
import os
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execv("/bin/sh", ["{marker}", "-c", "touch /tmp/started; sleep 99; true"])
while not os.path.exists("/tmp/started"): pass
def solve(n): return n
"""
    assert grade(code, CALLS).verdict == Verdict.wrong
    deadline = time.monotonic() + 5
    while any(marker.encode() in command_line(path) for path in Path("/proc").glob("[0-9]*/cmdline")):
        assert time.monotonic() < deadline, "a process of the box is still alive"
        time.sleep(0.05)


# Process 1 of a new pid namespace, as in a container. It waits only for its own children.
PROCESS_1 = """
import glob, json, os
from grpo_cli.sandbox.code import grade_code

def grade(code, tests, verdict):
    graded = grade_code(json.dumps(tests), f"```python\\n{code}\\n```", timeout_s=0.5)
    assert graded.verdict == verdict, graded.reason

CALLS, PROGRAM = {"fn_name": "f", "inputs": [[1]], "outputs": [3]}, {"inputs": ["1"], "outputs": ["3"]}
grade("def f(x): return 3", CALLS, "correct")
grade("print(3)", PROGRAM, "correct")
grade("def f(x): return 3", ["assert f(1) == 3"], "correct")
grade("def f(x): raise SystemExit", CALLS, "wrong")
grade("import os; os._exit(1)", PROGRAM, "wrong")
grade("import os\\nfor _ in range(3): os.fork()\\nwhile True: pass", CALLS, "timeout")
grade("import os\\nif os.fork(): print(3)\\nelse: os.setsid(); os.fork(); input()", PROGRAM, "correct")
grade("while True: pass", PROGRAM, "timeout")
print(os.getpid(), glob.glob("/proc/[0-9]*"))
"""


def test_a_box_leaves_no_process_behind_not_even_a_zombie():
    unshare = ["unshare", *([] if os.geteuid() == 0 else ["--map-root-user"]), "--pid", "--fork", "--mount-proc"]
    try:
        subprocess.run([*unshare, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"needs a new pid namespace: {error}")
    left = subprocess.run([*unshare, sys.executable, "-c", PROCESS_1], capture_output=True, text=True)
    assert left.stdout == "1 ['/proc/1']\n", left.stderr


def test_a_box_is_killed_with_its_judge():
    marker = f"TOKEN_{secrets.token_hex(16)}"
    response = f"```python\nimport os\nos.execv('/bin/sh', ['{marker}', '-c', 'sleep 99; true'])\n```"
    judge = f"from grpo_cli.sandbox.code import grade_code\ngrade_code('assert f(1)', {response!r}, timeout_s=99)"
    process = subprocess.Popen([sys.executable, "-c", judge])
    wait_until(lambda: is_running(marker), "the box has not started")
    process.kill()
    process.wait()
    wait_until(lambda: not is_running(marker), "the box is still alive")


def wait_until(is_true, message):
    deadline = time.monotonic() + 20
    while not is_true():
        assert time.monotonic() < deadline, message
        time.sleep(0.05)


def is_running(marker):
    return any(marker.encode() in command_line(path).split(b"\0")[:1] for path in Path("/proc").glob("[0-9]*/cmdline"))


def command_line(path):
    try:
        return path.read_bytes()
    except OSError:  # the process has just ended
        return b""


def test_boxes_do_not_share_their_files():
    code = (
        "import os\ndef solve(n):\n    seen = os.path.exists('/tmp/left')\n    open('/tmp/left', 'w')\n    return seen"
    )
    for _ in range(2):
        assert grade(code, "assert solve(1) == False").verdict == Verdict.correct


def test_boxes_do_not_share_their_limits():
    busy = (
        "import threading, time\nfor _ in range(4): threading.Thread(target=time.sleep, args=[1], daemon=True).start()"
    )
    code = f"{busy}\ndef solve(n):\n    time.sleep(0.5)\n    return n"
    tests = json.dumps({"fn_name": "solve", "inputs": [[2]], "outputs": [2]})
    with ThreadPoolExecutor(4) as pool:
        grades = list(pool.map(lambda _: grade(code, tests, max_processes=5), range(4)))
    assert [graded.verdict for graded in grades] == [Verdict.correct] * 4


@pytest.mark.parametrize(("tests", "code"), chapter("Fair"))
def test_honest_code_passes(tests, code):
    graded = grade(code, tests)
    assert graded.verdict == Verdict.correct, graded.reason
    assert graded.passed == graded.total


ONE_OF_TWO = (Verdict.wrong, 1, 2)
NONE_OF_TWO = (Verdict.wrong, 0, 2)


@pytest.mark.parametrize(
    ("tests", "code", "expected"),
    [
        (CALLS, "def solve(n): return 1009", (*ONE_OF_TWO, "solve returned 1009, not 2027")),
        (CALLS, "def other(n): return 1009", (*NONE_OF_TWO, "NameError: solve is not defined")),
        (CALLS, "def solve(n) return", (*NONE_OF_TWO, "SyntaxError: expected ':' (<solution>, line 1)")),
        (CALLS, "def solve(n): return 'x' * (5 << 20)", (*NONE_OF_TWO, "more than 4 MiB of output")),
        (ASSERTS, "def solve(n): return 2027", (*ONE_OF_TWO, "assert solve(2) == 1009: AssertionError")),
        (
            CHECK,
            "def solve(n): return [1009][n - 2]",
            (*ONE_OF_TWO, "assert candidate(3) == 2027: IndexError: list index out of range"),
        ),
        (PROGRAM, "print(1009)", (*ONE_OF_TWO, r"printed '1009\n', not '2027\n'")),
        (PROGRAM, "print(1009)\n1 / (input() == '2')", (*ONE_OF_TWO, "ZeroDivisionError: division by zero")),
        (PROGRAM, "print(1009)\nimport os\nif input() == '3': os._exit(7)", (*ONE_OF_TWO, "exit status 7")),
        (
            "x = solve(1)\nassert x == 2",
            "def solve(n): 1 / 0",
            (Verdict.wrong, 0, 1, "ZeroDivisionError: division by zero"),
        ),
        ("solve(1)", "def solve(n): 1 / 0", (Verdict.wrong, 0, 1, "ZeroDivisionError: division by zero")),
        ("solve(1)", "def solve(n): pass", (Verdict.correct, 1, 1, "")),
        (
            "assert solve(1)\nsolve(2)",
            "def solve(n): return 1 // (2 - n)",
            (Verdict.wrong, 0, 1, "ZeroDivisionError: integer division or modulo by zero"),
        ),
    ],
)
def test_a_grade_counts_the_tests_and_gives_the_reason(tests, code, expected):
    assert grade(code, tests) == expected


def test_tests_passed_before_the_deadline_count():
    code = "def solve(n):\n    while n > 2: pass\n    return 1009"
    for tests in (CALLS, ASSERTS):
        assert grade(code, tests, timeout_s=2) == (Verdict.timeout, 1, 2, "out of time")


def test_fail_fast_stops_at_the_first_failure():
    code = "import time\ndef solve(n):\n    if n == 3: time.sleep(99)\n    return n"
    for tests in (CALLS, ASSERTS, CHECK):
        assert grade(code, tests, fail_fast=True)[:3] == NONE_OF_TWO


def problems(shared, source):
    """Every 20th problem of HumanEval or MBPP; all of them if ALL_PROBLEMS is set (this takes minutes)."""
    rows = [json.loads(line) for line in (shared / "data" / f"code_{source}.jsonl").open()]
    return rows if os.environ.get("ALL_PROBLEMS") else rows[::20]


def solution(row):
    return (row["prompt"] if row["source"] == "HumanEval" else "") + row["canonical_solution"]


def completion(row):
    """The text that a model writes: for HumanEval, the continuation of the prompt; for MBPP, the whole solution."""
    return row["canonical_solution"]


def with_an_example(row):
    """The solution, then a code block that calls it, then a block with the output."""
    return f"{solution(row)}\n```\nFor example:\n```python\nprint({row['entry_point']})\n```\nOutput:\n```\n3"


def without_body(row):
    """The solution, with an empty body in the function that the tests call."""
    tree = ast.parse(solution(row))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name == row["entry_point"]:
            node.body = [ast.Pass()]
    return ast.unparse(tree)


@pytest.mark.parametrize("source", ["humaneval", "mbpp"])
@pytest.mark.parametrize(
    ("program", "verdict"),
    [
        (solution, Verdict.correct),
        (completion, Verdict.correct),
        (with_an_example, Verdict.correct),
        (without_body, Verdict.wrong),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid escape sequence")
def test_solutions_of_real_problems_get_the_right_verdict(shared, source, program, verdict):
    def grade_problem(row):
        keys = {"humaneval": ("prompt", "tests"), "mbpp": ("test_list", "test_setup_code")}[source]
        return grade(program(row), json.dumps({key: row[key] for key in (*keys, "entry_point")}), timeout_s=20)

    rows = problems(shared, source)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        grades = list(pool.map(grade_problem, rows))
    assert len(rows) > 8
    assert not {row["id"]: graded for row, graded in zip(rows, grades, strict=True) if graded.verdict != verdict}
