"""The process that has imported everything: programs in its forks behave as they do in a Python of
their own.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from reference.waiting import LIMIT_S, until

from vlact.runtime import forkserver

PYTHON = [sys.executable, "-m", "vlact.runtime.forkserver"]
COLD = {k: v for k, v in os.environ.items() if k != forkserver.ADDRESS}


def sleeper(folder: Path) -> list[str]:
    """A command that prints its process and sleeps."""
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    (folder / "sleeps.py").write_text(code)
    into = "import os, sys; os.chdir(sys.argv[1]); os.execv(sys.executable, sys.argv[2:])"
    return [sys.executable, "-c", into, str(folder), *PYTHON, "-m", "sleeps"]


@pytest.fixture(scope="module")
def served():
    """An environment in which programs are forked, as long as the module's tests last."""
    code = (
        "import os; print(os.environ['{}']); print(os.environ['JUPYTER_PATH'], flush=True); input()"
    )
    command = [*PYTHON, "serve", sys.executable, "-c", code.format(forkserver.ADDRESS)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=COLD, text=True, **pipes) as child:
        address, path = (child.stdout.readline().rstrip("\n") for _ in range(2))
        yield COLD | {forkserver.ADDRESS: address, "JUPYTER_PATH": path}
        child.communicate("\n")


@pytest.fixture(params=["forked", "plain"])
def environment(request):
    return request.getfixturevalue("served") if request.param == "forked" else COLD


@pytest.fixture
def run(tmp_path):
    """Run code as a module, `program`, of a folder of its own."""

    def go(environment, code, *arguments, **more):
        (tmp_path / "program.py").write_text(code)
        command = [*PYTHON, "-m", "program", *arguments]
        given = environment | {"PYTHONPATH": os.getcwd()}
        more |= {"cwd": tmp_path, "text": True, "timeout": LIMIT_S}
        return subprocess.run(command, env=given, capture_output=True, **more)

    return go


def test_a_program_has_its_arguments_folder_environment_and_files(environment, run, tmp_path):
    code = (
        "import os, sys; print(sys.argv[1:], os.getcwd(), os.environ['WHO'], sys.stdin.read()); "
        "print('said', file=sys.stderr); sys.exit(7)"
    )
    done = run(environment | {"WHO": "me"}, code, "a", "b c", input="given")
    assert done.stdout == f"['a', 'b c'] {tmp_path} me given\n"
    assert done.stderr == "said\n" and done.returncode == 7


def test_a_program_is_as_nice_as_what_asked_for_it(environment, run):
    wanted = os.nice(0) + 3
    done = run(environment, "import os; print(os.nice(0))", preexec_fn=lambda: os.nice(3))
    assert int(done.stdout) == wanted


def test_a_module_runs_as_main(environment):
    command = [*PYTHON, "-m", "json.tool", "--compact"]
    given = {"input": '{"a": [1, 2]}', "text": True, "timeout": LIMIT_S}
    done = subprocess.run(command, env=environment, capture_output=True, **given)
    assert done.stdout == '{"a":[1,2]}\n' and done.returncode == 0


def test_what_goes_wrong_is_said_as_python_says_it(environment, run):
    done = run(environment, "raise ValueError('wrong')")
    assert done.returncode == 1 and done.stderr.rstrip().endswith("ValueError: wrong")
    done = run(environment, "import sys; sys.exit('no such thing')")
    assert done.returncode == 1 and done.stderr == "no such thing\n"


def test_a_program_that_is_forked_has_imported_torch(served, run):
    code = "import sys; print('torch' in sys.modules)"
    assert run(served, code).stdout == "True\n" != run(COLD, code).stdout


def ended(pid: int) -> bool:
    """Whether a process is no more, or only waits to be counted."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
    except (ProcessLookupError, FileNotFoundError):
        return True


@pytest.mark.parametrize("code", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_killed_program_is_gone(served, code, tmp_path):
    child = subprocess.Popen(sleeper(tmp_path), env=served, stdout=subprocess.PIPE, text=True)
    pid = int(child.stdout.readline())
    child.send_signal(code)
    assert child.wait(LIMIT_S) == -code
    until(lambda: ended(pid), f"the end of process {pid}")


def test_a_kill_of_the_whole_group_reaches_programs_in_groups_of_their_own(tmp_path):
    """As `timeout`, a batch system or a terminal that closes does."""
    command = [*PYTHON, "serve", *sleeper(tmp_path)]
    child = subprocess.Popen(
        command, env=COLD, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    pid = int(child.stdout.readline())
    assert os.getpgid(pid) != os.getpgid(child.pid)
    os.killpg(child.pid, signal.SIGTERM)
    assert child.wait(LIMIT_S) == -signal.SIGTERM
    until(lambda: ended(pid), f"the end of process {pid}")


def test_serve_returns_what_its_command_returned():
    code = f"import os, sys; sys.exit(9 if os.environ['{forkserver.ADDRESS}'] else 1)"
    command = [*PYTHON, "serve", sys.executable, "-c", code]
    assert subprocess.run(command, env=COLD, timeout=LIMIT_S).returncode == 9


def test_workers_are_known_to_what_started_them_and_their_errors_come_back(served, tmp_path):
    """joblib replaces a worker that has grown, by its number: a fork of the server's, whose number
    it does not know, would wait for ever.
    """
    script = tmp_path / "many.py"
    script.write_text(
        "import math, os\nfrom functools import partial\nfrom vlact.runtime import jobs\n"
        "if __name__ == '__main__':\n"
        "    print({*jobs.run([partial(os.getppid)] * 2, 2, 'parents')} == {os.getpid()})\n"
        "    jobs.run([partial(math.sqrt, x) for x in (4.0, -1.0)], 2, 'roots')\n"
    )
    command = [sys.executable, script]
    done = subprocess.run(command, env=served, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.stdout == "True\n" and "ValueError: " in done.stderr


def test_its_kernel_is_found_under_the_usual_name(served, run):
    code = (
        "from jupyter_client.kernelspec import get_kernel_spec; "
        "print(get_kernel_spec('python3').argv[:5])"
    )
    wanted = ["python", "-m", "vlact.runtime.forkserver", "-m", "ipykernel_launcher"]
    assert run(served, code).stdout == f"{wanted}\n"
    assert run(COLD, code).stdout != f"{wanted}\n"
