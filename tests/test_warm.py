"""The process that has imported everything: programs in its forks behave as they do in a Python of
their own.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from reference.waiting import LIMIT_S, until

from vlact.runtime import warm

PYTHON = [sys.executable, "-m", "vlact.runtime.warm"]
COLD = {k: v for k, v in os.environ.items() if k != warm.ADDRESS}


@pytest.fixture(scope="module")
def served():
    """An environment in which programs are forked."""
    with warm.serving(COLD) as environment:
        yield environment


@pytest.fixture(params=["forked", "plain"])
def environment(request):
    return request.getfixturevalue("served") if request.param == "forked" else COLD


def run(environment, *arguments, **more):
    return subprocess.run(
        [*PYTHON, *arguments], env=environment, capture_output=True, text=True, timeout=120, **more
    )


def test_a_program_has_its_arguments_folder_environment_and_files(environment, tmp_path):
    code = (
        "import os, sys; print(sys.argv, os.getcwd(), os.environ['WHO'], sys.stdin.read()); "
        "print('said', file=sys.stderr); sys.exit(7)"
    )
    done = run(environment | {"WHO": "me"}, "-c", code, "a", "b c", cwd=tmp_path, input="given")
    assert (
        done.stdout == f"['-c', 'a', 'b c'] {tmp_path} me given\n"
        and done.stderr == "said\n"
        and done.returncode == 7
    )


def test_a_program_is_as_nice_as_what_asked_for_it(environment):
    wanted = os.nice(0) + 3
    done = run(environment, "-c", "import os; print(os.nice(0))", preexec_fn=lambda: os.nice(3))
    assert int(done.stdout) == wanted
    # a fork is a session, to which Linux may give a share
    if environment is not COLD and os.path.isfile("/proc/self/autogroup"):
        done = run(
            environment,
            "-c",
            "print(open('/proc/self/autogroup').read())",
            preexec_fn=lambda: os.nice(3),
        )
        assert done.stdout.split()[-1] == str(wanted)


def test_a_module_runs_as_main(environment):
    done = run(environment, "-m", "json.tool", "--compact", input='{"a": [1, 2]}')
    assert done.stdout == '{"a":[1,2]}\n' and done.returncode == 0


def test_other_open_files_are_handed_on_by_their_numbers(environment):
    end, start = os.pipe()
    with os.fdopen(end) as reader:
        code = f"import os; os.write({start}, b'through the pipe')"
        assert (
            subprocess.run(
                [*PYTHON, "-c", code], env=environment, pass_fds=[start], timeout=120
            ).returncode
            == 0
        )
        os.close(start)
        assert reader.read() == "through the pipe"


def test_what_goes_wrong_is_said_as_python_says_it(environment):
    done = run(
        environment,
        "-c",
        "import atexit; atexit.register(print, 'the end'); raise ValueError('wrong')",
    )
    assert (
        done.returncode == 1
        and done.stdout == "the end\n"
        and done.stderr.rstrip().endswith("ValueError: wrong")
    )
    done = run(environment, "-c", "import sys; sys.exit('no such thing')")
    assert done.returncode == 1 and done.stderr == "no such thing\n"


SLEEPS = "import os, sys, time; print(os.getpid(), flush=True); time.sleep(60)"


def begin(environment, code=SLEEPS):
    child = subprocess.Popen(
        [*PYTHON, "-c", code], env=environment, stdout=subprocess.PIPE, text=True
    )
    return child, int(child.stdout.readline())


def ended(pid: int) -> bool:
    """Whether a process is no more, or only waits to be counted."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
    except (ProcessLookupError, FileNotFoundError):
        return True


def gone(pid: int) -> bool:
    """Wait until a process has ended."""
    until(lambda: ended(pid), f"the end of process {pid}")
    return True


@pytest.mark.parametrize("code", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_program_is_gone(environment, code):
    child, pid = begin(environment)
    child.send_signal(code)
    assert child.wait(LIMIT_S) == -code and gone(pid)


@pytest.mark.parametrize("code", [signal.SIGTERM, signal.SIGHUP])
def test_a_kill_of_the_whole_group_reaches_programs_in_sessions_of_their_own(code):
    """As `timeout`, a batch system or a terminal that closes does; who hands it on is killed with
    the rest, and must not die first.
    """
    listening = (
        f"import os, signal, sys; signal.signal({int(code)}, signal.SIG_DFL); "
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    # whoever runs this may ignore it
    command = [sys.executable, "-c", listening, *PYTHON, "serve", *PYTHON, "-c", SLEEPS]
    child = subprocess.Popen(
        command, env=COLD, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    pid = int(child.stdout.readline())
    assert os.getsid(pid) != os.getsid(child.pid)
    os.killpg(child.pid, code)
    assert child.wait(LIMIT_S) == -code and gone(pid)


SAYS = (
    "import os, signal; signal.signal(signal.SIGINT, lambda *_: os.write(1, b'caught\\n')); "
    "print(os.getpid(), flush=True)\nwhile True: signal.pause()"
)


def test_under_nohup_a_closed_terminal_ends_nothing(served):
    ignoring = (
        "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); "
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", ignoring, *PYTHON, "-c", SAYS],
        env=served,
        stdout=subprocess.PIPE,
        text=True,
    )
    pid = int(child.stdout.readline())
    child.send_signal(signal.SIGHUP)
    child.send_signal(signal.SIGINT)
    assert child.stdout.readline() == "caught\n"
    assert child.poll() is None and os.path.exists(f"/proc/{pid}")
    child.kill()
    assert gone(pid)


def test_an_interrupt_reaches_the_program_once(environment):
    child, pid = begin(environment, SAYS)
    for _ in range(2):
        child.send_signal(signal.SIGINT)
        assert child.stdout.readline() == "caught\n"
    child.kill()
    assert child.stdout.read() == "" and gone(pid)


def test_an_interrupt_before_the_program_began_is_not_lost(served):
    """Whoever stands for it has asked, and waits."""
    with socket.socket(socket.AF_UNIX) as listener, tempfile.TemporaryDirectory() as folder:
        listener.bind(f"{folder}/socket")
        listener.listen()
        child = subprocess.Popen(
            [*PYTHON, "-c", SLEEPS], env=served | {warm.ADDRESS: f"{folder}/socket"}
        )
        asking, _ = listener.accept()
        head, sent, *_ = asking.recvmsg(8, 4096)
        text = asking.recv(int.from_bytes(head), socket.MSG_WAITALL)
        child.send_signal(signal.SIGINT)
        assert asking.recv(1, socket.MSG_PEEK) == bytes([signal.SIGINT])
        with socket.socket(socket.AF_UNIX) as server:  # all at once, as if the server had been busy
            server.connect(served[warm.ADDRESS])
            server.sendmsg([head], [(level, kind, data) for level, kind, data in sent])
            server.sendall(text + asking.recv(1))
            # within the program, or before it
            assert int.from_bytes(server.recv(2), signed=True) in (1, -signal.SIGINT)
        child.kill()
        child.wait()


def test_what_serves_ends_with_whoever_started_it():
    body = "    print(e[warm.ADDRESS], flush=True)\n    os.kill(os.getpid(), 9)"
    code = "import os\nfrom vlact.runtime import warm\n"
    code += f"with warm.serving(dict(os.environ)) as e:\n{body}"
    address = subprocess.run(
        [sys.executable, "-c", code], env=COLD, capture_output=True, text=True, timeout=LIMIT_S
    ).stdout.strip()
    until(lambda: not served_by(address), "the end of what serves")
    assert os.path.exists(address) and not served_by(address)


def served_by(address: str) -> bool:
    """Whether anybody listens there."""
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(address)
        except OSError:
            return False
        return True


def test_serve_returns_what_its_command_returned():
    assert (
        run(
            COLD,
            "serve",
            sys.executable,
            "-c",
            "import os, sys; sys.exit(9 if os.environ['VLACT_WARM'] else 1)",
        ).returncode
        == 9
    )
    assert (
        run(COLD).returncode == 2
        and "python -m vlact.runtime.warm serve COMMAND" in run(COLD).stderr
    )


def test_workers_are_forked_and_their_errors_come_back(served, tmp_path):
    script = tmp_path / "many.py"
    script.write_text(
        "import math, sys\nfrom vlact.runtime import jobs\nif __name__ == '__main__':\n"
        "    print(jobs.run(math.sqrt, [(4.0,), (9.0,)], 2, 'roots'))\n    jobs.run(math.sqrt, "
        "[(4.0,), (-1.0,)], 2, 'roots')\n"
    )
    done = subprocess.run(
        [sys.executable, script], env=served, capture_output=True, text=True, timeout=120
    )
    assert done.stdout == "[2.0, 3.0]\n" and "ValueError: " in done.stderr


def test_its_kernel_is_found_under_the_usual_name(served):
    from jupyter_client.kernelspec import KernelSpecManager

    code = (
        "from jupyter_client.kernelspec import get_kernel_spec; "
        "print(get_kernel_spec('python3').argv)"
    )
    argv = [
        "python",
        "-m",
        "vlact.runtime.warm",
        "-m",
        "ipykernel_launcher",
        "-f",
        "{connection_file}",
    ]
    assert run(served, "-c", code).stdout == f"{argv}\n"
    assert KernelSpecManager().get_kernel_spec("python3").argv != argv
