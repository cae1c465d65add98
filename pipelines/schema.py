"""`python -m pipelines.schema` writes configs/schema.json, by which editors check and complete configurations."""

from __future__ import annotations

import json
from pathlib import Path

from recdistill.config import config_schema
from recdistill.store import write_text


def main() -> None:
    """Write the schema into the current directory's `configs`."""
    write_text(Path("configs/schema.json"), json.dumps(config_schema(), indent=1) + "\n")


if __name__ == "__main__":
    main()
