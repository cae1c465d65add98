"""`python -m pipelines.schema` writes the schemas of configurations and presets, and of what a run leaves as JSON."""

from __future__ import annotations

import json
from pathlib import Path

from recdistill.config import config_schema
from recdistill.methods import method_schema
from recdistill.report import schema as report_schema
from recdistill.store import write_text
from recdistill.surface_form import surface_schema


def main() -> None:
    """Write the schemas into the current directory: `configs`, for editors, and `recdistill`, which packages them."""
    schemas = {
        "configs/schema": config_schema(),
        "configs/method.schema": method_schema(),
        "recdistill/report.schema": report_schema(),
        "recdistill/surface.schema": surface_schema(),
    }
    for name, schema in schemas.items():
        write_text(Path(f"{name}.json"), json.dumps(schema, indent=1) + "\n")


if __name__ == "__main__":
    main()
