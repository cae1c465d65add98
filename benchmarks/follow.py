"""The commands of pages, followed to the letter: what each printed, beside what its page says that it prints.

    python benchmarks/follow.py docs/tutorial.md docs/howto/promote.md --file ml-100k.zip

One shell types every fence of commands (sh, or of no language), page after page, in a new home with a clone of this
checkout in ~/recdistill and the given file in ~/Downloads. A fence of text that comes next says what is printed; in it
`...` stands for what is left out, and `error:` for a command that has to fail. Figures may differ, and are shown;
words may not: the exit code is then 1. Needs git, and takes the eight minutes that the tutorial takes.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FENCE = re.compile(r"^(```|~~~)([^\n]*)\n(.*?)^\1$", flags=re.MULTILINE | re.DOTALL)
COMMANDS = ("", "sh")
DOTS = "..."
FIGURE = re.compile(r"\b[0-9a-f]{12,}\b|\d+(?:[.,:]\d+)*")
RULE = re.compile("\u2500+")  # as long as its table is wide, which is as wide as its figures
OURS = ("VIRTUAL_ENV", "PYTHON", "MLFLOW", "XDG", "COLUMNS")  # what of this shell a newcomer would not have


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One fence of commands, where it stands, and what the page says it prints, None if it says nothing."""

    where: str
    command: str
    says: str | None = None

    @property
    def fails(self) -> bool:
        """Return whether the page says that it fails."""
        return self.says is not None and re.search(r"^error:", self.says, flags=re.MULTILINE) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Differences:
    """Figures that are others, (the page's, printed); words of the page that were not printed, and the reverse."""

    figures: Sequence[tuple[str, str]] = ()
    lacks: Sequence[str] = ()
    more: Sequence[str] = ()


def steps(page: str, name: str) -> Iterator[Step]:
    """Yield what there is to type on a page."""
    fences = list(FENCE.finditer(page))
    for fence, after in zip(fences, [*fences[1:], None], strict=True):
        if fence[2] in COMMANDS:
            line = page.count("\n", 0, fence.start()) + 2
            says = after[3] if after is not None and after[2] == "text" else None
            yield Step(where=f"{name}:{line}", command=fence[3], says=says)


def compare(says: str, printed: str) -> Differences:
    """Return how `printed` differs from what the page says, word by word, however the words lie in lines."""
    mine, theirs = says.split(), printed.split()
    figures, lacks, more = list[tuple[str, str]](), list[str](), list[str]()
    same = difflib.SequenceMatcher(None, [_shape(w) for w in mine], [_shape(w) for w in theirs], autojunk=False)
    for kind, i, i_end, j, j_end in same.get_opcodes():
        left, right = mine[i:i_end], theirs[j:j_end]
        if kind == "equal":
            pairs = zip(left, right, strict=True)
            figures += [(a, b) for a, b in pairs if a != b and _shape(a) != "\u2500"]
            continue
        lacks += [word for word in left if word != DOTS]
        if DOTS not in left:
            more += right
    return Differences(figures=tuple(figures), lacks=tuple(lacks), more=tuple(more))


def _shape(word: str) -> str:
    """Return a word with `#` for each of its figures."""
    return RULE.sub("\u2500", FIGURE.sub("#", word))


def script(found: Sequence[Step], out: Path) -> str:
    """Return what the shell is to do; it stops at the first command that fails and should not."""
    parts = ["exec 3>&2"]
    for n, step in enumerate(found):
        at = out / str(n)
        parts.append(f"echo '{step.where}' >&3")
        parts.append(f"{{\n{step.command}}} >{at}.out 2>{at}.err </dev/null")
        parts.append(f"code=$?; echo $code >{at}.code")
        parts.append("true" if step.fails else "[ $code = 0 ] || exit $code")
    return "\n".join(parts) + "\n"


def follow(found: Sequence[Step], home: Path) -> None:
    """Type everything in a shell whose home is `home`, and leave there what was printed, in `printed`."""
    out = home / "printed"
    out.mkdir()
    kept = {name: text for name, text in os.environ.items() if not name.startswith(OURS)}
    paths = [p for p in kept["PATH"].split(os.pathsep) if p != str(Path(sys.executable).parent)]
    env = kept | {"HOME": str(home), "PATH": os.pathsep.join(paths)}
    subprocess.run(["bash", "-c", script(found, out)], cwd=home, env=env, check=False)


def told(found: Sequence[Step], out: Path) -> tuple[list[str], bool]:
    """Return what came of each step as lines to read, and whether all of it is as the pages say."""
    lines, fine = list[str](), True
    for n, step in enumerate(found):
        head = f"{step.where}  {step.command.splitlines()[0]}"
        if not (out / f"{n}.code").is_file():
            return [*lines, f"{head}\n    NOT REACHED, with {len(found) - n - 1} after it"], False
        code = int((out / f"{n}.code").read_text())
        printed = (out / f"{n}.out").read_text() + ((out / f"{n}.err").read_text() if code else "")
        if step.fails != bool(code):
            lines += [head, f"    EXIT CODE {code}", textwrap.indent(printed[-2000:], "    ")]
            fine = False
            continue
        differs = Differences() if step.says is None else compare(step.says, printed)
        lines.append(head if step.says is None or named(differs) else f"{head}    as the page says")
        lines += [f"    {name}: {_shown(words)}" for name, words in named(differs).items()]
        fine = fine and not differs.lacks and not differs.more
    return lines, fine


def named(differs: Differences) -> Mapping[str, Sequence[str]]:
    """Return what differs, by what a reader calls it."""
    figures = [f"{a} -> {b}" for a, b in differs.figures]
    every = {"other figures": figures, "NOT PRINTED": differs.lacks, "NOT ON THE PAGE": differs.more}
    return {name: words for name, words in every.items() if words}


def _shown(words: Sequence[str]) -> str:
    between = ", " if " -> " in words[0] else " "
    return textwrap.fill(between.join(words), 116, subsequent_indent="        ", break_long_words=False)


def main() -> int:
    """Follow the pages that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="+", type=Path)
    parser.add_argument("--file", type=Path, action="append", default=[], help="what the pages find in ~/Downloads")
    parser.add_argument("--home", type=Path, help="where to do it, empty but for recdistill; left out, a temporary one")
    given = parser.parse_args()
    home = (given.home or Path(tempfile.mkdtemp(prefix="follow-"))).resolve()
    (home / "Downloads").mkdir(parents=True, exist_ok=True)
    for file in given.file:
        shutil.copy(file, home / "Downloads")
    if not (home / "recdistill").exists():
        subprocess.run(["git", "clone", "--quiet", ROOT, home / "recdistill"], check=True)
    found = [step for page in given.pages for step in steps(page.read_text(encoding="utf-8"), str(page))]
    follow(found, home)
    lines, fine = told(found, home / "printed")
    print("\n".join(lines))
    print(f"{len(found)} fences, in {home}: {'as the pages say' if fine else 'NOT as the pages say'}")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
