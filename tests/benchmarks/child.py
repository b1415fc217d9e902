"""One measurement, in this process: ``python -m tests.benchmarks.child MEASURE SYSTEM VARIANT COUNT SECONDS ANSWER``.

The runner starts it at a fresh place and reads the answer, a JSON file.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

from tests.benchmarks import measures
from tests.benchmarks.figures import SYSTEMS
from tests.benchmarks.place import Place


def main() -> None:
    """Measure once and write the metrics."""
    measure, system, variant, count, seconds, answer = sys.argv[1:]
    module, name = system.split(":")
    contender = getattr(importlib.import_module(f"{SYSTEMS}.{module}"), name)(Place.current(), variant)
    measurement: measures.Measure = getattr(measures, measure)(contender, float(seconds))
    measurement.prepare(int(count))
    Path(answer).write_text(json.dumps(measurement.run()))


if __name__ == "__main__":
    main()
