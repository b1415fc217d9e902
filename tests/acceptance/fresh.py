"""The first two commands of the README, word for word, where nothing else is installed.

`python -m tests.acceptance.fresh FOLDER`: FOLDER gets a clone of what is committed here and a virtual environment, both
new. What makes this a check of its own is what is *not* there: the packages of the tests, and files that were never
committed. Only a slice of the library is indexed, so that it takes seconds. Run by `tox -e fresh`.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
CONSOLE: Final = re.compile(r"^```console\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SLICE: Final = ("--packages", "email,json,asyncio,unittest")
PROOF: Final = "what was checkpointed was not run again"
"""What the demo says when it has killed a worker and looked at the ledger."""


def commands() -> list[list[str]]:
    """Return the commands of the README's first block."""
    block = CONSOLE.search((ROOT / "README.md").read_text())
    if block is None:
        raise SystemExit("README.md has no block of console commands.")
    return [shlex.split(line.removeprefix("$ ")) for line in block[1].splitlines()]


def main(folder: Path) -> None:
    """Clone, make the environment, run."""
    shutil.rmtree(folder, ignore_errors=True)
    clone, environment = folder / "clone", folder / "environment"
    run(["git", "clone", "--quiet", str(ROOT), str(clone)], ROOT)
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    install, demo = commands()
    run([str(python), *install[1:], "--quiet"], clone)
    for variant in ([], ["--postgres"]):
        said = run([str(python), *demo[1:], *SLICE, *variant], clone)
        if PROOF not in said:
            raise SystemExit(f"The demo proved nothing:\n{said}")
    shutil.rmtree(folder)


def run(command: list[str], folder: Path) -> str:
    """Run a command, show what it says, and end with it when it fails."""
    print("$", shlex.join(command), flush=True)
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    print(done.stdout, flush=True)
    if done.returncode:
        raise SystemExit(f"That failed with exit code {done.returncode}.")
    return done.stdout


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
