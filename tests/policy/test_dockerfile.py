from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def instructions() -> list[tuple[str, str]]:
    """Return the Dockerfile as (instruction, arguments), continued lines joined and comments left out."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(word.upper(), rest) for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


def values(name: str) -> list[str]:
    return [rest for word, rest in instructions() if word == name]


def test_there_are_two_stages_of_one_pinned_image() -> None:
    images = [rest.split()[0] for rest in values("FROM")]
    assert len(images) == 2
    assert images[0] == images[1]
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-[a-z]+", images[0])


def test_the_image_does_not_run_as_root() -> None:
    last = max(n for n, (word, _) in enumerate(instructions()) if word == "FROM")
    users = [rest for word, rest in instructions()[last:] if word == "USER"]
    assert users
    assert users[-1] not in {"root", "0"}


def test_versions_are_the_pinned_ones() -> None:
    installs = [rest for rest in values("RUN") if "pip install" in rest]
    assert len(installs) == 2
    assert all("requirements/$VARIANT.txt" in rest or "--no-deps" in rest for rest in installs)
    assert "VARIANT=cpu" in values("ARG")
    assert all((ROOT / "requirements" / f"{variant}.txt").is_file() for variant in ("cpu", "cuda"))


def test_only_what_is_named_is_copied() -> None:
    copied = [source for rest in values("COPY") if "--from" not in rest for source in rest.split()[:-1]]
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert "*" in (ROOT / ".dockerignore").read_text().splitlines()
    assert set(copied) == sent


def test_no_secret_is_baked_in() -> None:
    assert not re.search(r"(?i)password|secret|token|api_key|\.env\b", (ROOT / "Dockerfile").read_text())
