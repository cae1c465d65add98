"""What follows a page types what stands there, in one shell, and tells figures that moved from words that are wrong."""

from __future__ import annotations

from pathlib import Path

from benchmarks.follow import ROOT, Differences, Step, compare, follow, steps, told

PAGE = """# A page

```sh
WHERE=deep
mkdir $WHERE && cd $WHERE
cat > said <<'EOF'
two words, 3.5 of 10
EOF
```

Prose.

```
cat said
```

```text
two words, 3.6 of 10
```

```yaml
no: command
```

```sh
cat nothing
```

```text
error: no such file
```

```python
no = "command"
```
"""


def test_a_page_is_its_fences_of_commands_with_what_comes_next() -> None:
    one, two, three = steps(PAGE, "page.md")
    assert (one.where, one.says, one.command.splitlines()[0]) == ("page.md:4", None, "WHERE=deep")
    assert (two.command, two.says, two.fails) == ("cat said\n", "two words, 3.6 of 10\n", False)
    assert (three.command, three.fails) == ("cat nothing\n", True)


def test_one_shell_types_all_of_it(tmp_path: Path) -> None:
    found = list(steps(PAGE, "page.md"))
    follow(found, tmp_path)
    assert (tmp_path / "deep" / "said").read_text() == "two words, 3.5 of 10\n"
    lines, fine = told(found, tmp_path / "printed")
    assert lines[:3] == ["page.md:4  WHERE=deep", "page.md:14  cat said", "    other figures: 3.6 -> 3.5"]
    assert not fine  # cat has other words for it
    assert any(line.startswith("    NOT PRINTED: error:") for line in lines)


def test_it_stops_where_a_command_fails_of_which_the_page_does_not_say_so(tmp_path: Path) -> None:
    found = [Step(where=f"p:{n}", command=f"{word}\n") for n, word in enumerate(("true", "false", "echo"))]
    follow(found, tmp_path)
    lines, fine = told(found, tmp_path / "printed")
    assert not fine
    assert lines[:3] == ["p:0  true", "p:1  false", "    EXIT CODE 1"]
    assert lines[-1] == "p:2  echo\n    NOT REACHED, with 0 after it"


def test_a_command_that_should_fail_and_does_not_is_told(tmp_path: Path) -> None:
    found = [Step(where="p:1", command="echo error: x\n", says="error: x\n")]
    follow(found, tmp_path)
    lines, fine = told(found, tmp_path / "printed")
    assert not fine
    assert "    EXIT CODE 0" in lines


def test_other_figures_are_no_other_words_and_lines_may_break_elsewhere() -> None:
    says = "keeps 81.8% [77.1%, 87.2%] of its\nNDCG@10; 1.26 MB\n\u2500\u2500\u2500\u2500"
    printed = "keeps 9.8% [77.1%, 87.2%]\nof its NDCG@10; 1.27 MB\n\u2500\u2500"
    assert compare(says, printed) == Differences(figures=(("81.8%", "9.8%"), ("1.26", "1.27")))
    assert compare("fit faa8cdadcca28bc4", "fit 0123456789abcdef").lacks == ()


def test_three_dots_stand_for_what_is_left_out_there_and_nowhere_else() -> None:
    printed = "one two three four five"
    assert compare("one two ... five", printed) == Differences()
    assert compare("... four five", printed) == Differences()
    assert compare("one two five", printed).more == ("three", "four")
    assert compare("one two ... six", printed).lacks == ("six",)


def test_the_tutorial_begins_at_a_checkout_and_ends_with_an_answer() -> None:
    first, *_, last = steps((ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8"), "tutorial")
    assert first.command.startswith("SOURCE=~/recdistill\n")
    assert last.command.endswith("python ask.py\n")
