"""`python -m pipelines.schema` writes the schemas by which editors check and complete configurations and presets."""

from __future__ import annotations

import json
from pathlib import Path

from recdistill.config import config_schema
from recdistill.methods import method_schema
from recdistill.store import write_text


def main() -> None:
    """Write the schemas into the current directory's `configs`."""
    for name, schema in (("schema", config_schema()), ("method.schema", method_schema())):
        write_text(Path(f"configs/{name}.json"), json.dumps(schema, indent=1) + "\n")


if __name__ == "__main__":
    main()
