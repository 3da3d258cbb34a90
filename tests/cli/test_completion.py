"""The scripts that complete verbs and options."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from command_line import Command

from kinto_orm.cli import COMMANDS


def completed(script: str, *words: str) -> list[str]:
    """Return what bash offers for the last word."""
    line = " ".join(f"'{word}'" for word in words)
    program = f'{script}\nCOMP_WORDS=({line}) COMP_CWORD={len(words) - 1}\n_kinto_orm\necho "${{COMPREPLY[@]}}"'
    return subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True).stdout.split()


def test_bash_completes_verbs_and_options(kinto: Command) -> None:
    script = kinto("completion", "bash").out

    assert completed(script, "kinto-orm", "li") == ["list"]
    assert completed(script, "kinto-orm", "schema", "pu") == ["push"]
    assert completed(script, "kinto-orm", "list", "main", "--lim") == ["--limit"]
    assert completed(script, "kinto-orm", "schema", "push", "main/cfg", "--fo") == ["--force"]
    assert completed(script, "kinto-orm", "sync", "main/cfg", "rows") == []  # bash offers files
    assert set(completed(script, "kinto-orm", "")) == {name.split()[0] for name in COMMANDS}


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_scripts_of_other_shells_know_each_verb_and_are_read_by_them(shell: str, kinto: Command) -> None:
    run = kinto("completion", shell)

    assert run.code == 0
    assert all(word in run.out for name in COMMANDS for word in name.split())
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=run.out, text=True, check=True)


def test_another_shell_is_wrong_usage(kinto: Command) -> None:
    assert "did you mean zsh?" in kinto("completion", "szh").err
