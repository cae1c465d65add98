"""Every preset as Markdown: its paper, what it transfers, needs and costs, and what it sets."""

from __future__ import annotations

from _ext.family import FAMILIES, Preset, read


def methods() -> str:
    """Return a heading for each preset, with its facts and its lines of configuration."""
    lines: list[str] = []
    for family, title in FAMILIES.items():
        lines += [f"## {title}", ""]
        for preset in read([family]):
            lines += _method(preset)
    return "\n".join(lines)


def _method(preset: Preset) -> list[str]:
    method = preset.method
    facts = {
        "paper": method.paper,
        "transfers": method.transfers,
        "needs": ", ".join(method.set.needs) or "nothing",
        "its own settings": "" if method.reference == "-" else method.reference,
        "here otherwise": method.differs,
        "cost": method.cost,
    }
    rows = [f"| {name} | {_plain(said)} |" for name, said in facts.items() if said]
    _, _, text = preset.path.read_text(encoding="utf-8").partition("\nset:\n")
    return [
        f"(method-{preset.name})=",
        f"### {preset.name}",
        "",
        f"{method.title}.",
        "",
        *["| | |", "|---|---|", *rows],
        "",
        *["```yaml", *[line.removeprefix("  ") for line in text.rstrip().splitlines()], "```"],
        "",
    ]


def _plain(text: str) -> str:
    """Return text in which Markdown sees no emphasis, link, table or tag."""
    for letter in "\\*_[]|<":
        text = text.replace(letter, f"\\{letter}")
    return " ".join(text.split())
