"""Processes that end with the one that started them."""

import subprocess
import sys
import time

from critical_periods.core.processes import start_child

SLEEPER = (
    "from critical_periods.core.processes import end_with_parent;"
    "end_with_parent(); print('up', flush=True); import time; time.sleep(60)"
)


def test_a_child_ends_when_its_parent_does():
    """The system closes the pipe to it then, as is done by hand here."""
    child = start_child([sys.executable, "-c", SLEEPER], stdout=subprocess.PIPE)
    assert child.stdin is not None and child.stdout is not None
    assert child.stdout.readline() == b"up\n" and child.poll() is None
    child.stdin.close()
    assert child.wait(timeout=10) == 1
    child.stdout.close()


def test_a_process_that_someone_else_started_goes_on():
    """Whatever its standard input is: closed, at its end, or something to read."""
    code = SLEEPER.replace("time.sleep(60)", "time.sleep(0.3); print('done')")
    for closing in ("<&-", "< /dev/null", "<<< text", ""):
        command = f'exec {sys.executable} -c "$0" {closing}'
        found = subprocess.run(
            ["bash", "-c", command, code], input=b"", stdout=subprocess.PIPE, check=True
        )
        assert found.stdout == b"up\ndone\n"


def test_a_process_of_multiprocessing_ends_when_its_parent_does():
    """A process starts another one so, is killed, and the other one is gone too."""
    middle = (
        "import multiprocessing, time; context = multiprocessing.get_context('spawn');"
        "from critical_periods.core.processes import end_with_parent;"
        "from concurrent.futures import ProcessPoolExecutor as Pool;"
        "pool = Pool(1, context, end_with_parent); pool.submit(print, 'up', flush=True).result();"
        "time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", middle], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"up\n"
        process.kill()
        start = time.monotonic()
        # The last process that holds the pipe closes it.
        assert process.stdout.read() == b"" and time.monotonic() - start < 10
