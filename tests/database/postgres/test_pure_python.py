import subprocess
import sys
from pathlib import Path

from tests.database.postgres import pure_python

HERE = Path(__file__).parent
SUBSET = ("test_trio_connection.py", "test_resource.py", "test_resource_cancellation.py")


def test_what_it_does_on_psycopg_s_binary_implementation_it_does_on_the_pure_python_one() -> None:
    tests = [str(HERE / name) for name in SUBSET]
    command = [sys.executable, "-m", pure_python.__name__, "-q", "-p", "no:cacheprovider", *tests]
    run = subprocess.run(command, cwd=HERE.parents[2], capture_output=True, text=True, timeout=170, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert " passed" in run.stdout
