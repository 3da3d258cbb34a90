"""Completion for bash, zsh and fish: scripts that are made of the parser, so that they know each verb and option."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

PROGRAM = "kinto-orm"


@dataclass(frozen=True, slots=True)
class Words:
    """The words that may follow a verb."""

    summary: str
    options: Sequence[str]


def script(shell: str, verbs: Mapping[str, Words]) -> str:
    """Return the script for a shell. A verb may have two words, such as ``schema push``."""
    return "\n".join([*SHELLS[shell](verbs), ""])


def _first_words(verbs: Mapping[str, Words]) -> dict[str, str]:
    """Return the first words, each with its summary."""
    found: dict[str, str] = {}
    for name, words in verbs.items():
        first, _, second = name.partition(" ")
        found[first] = f"{found[first]}, {second}" if first in found else (second or words.summary)
    return found


def _families(verbs: Mapping[str, Words]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in verbs:
        first, _, second = name.partition(" ")
        if second:
            found.setdefault(first, []).append(second)
    return found


def _cases(verbs: Mapping[str, Words]) -> Iterator[str]:
    for name, words in verbs.items():
        yield f"        {shlex.quote(name)}) options={shlex.quote(' '.join(words.options))} ;;"


def _bash(verbs: Mapping[str, Words]) -> Iterator[str]:
    yield f'# bash completion for {PROGRAM}: eval "$({PROGRAM} completion bash)"'
    yield "_kinto_orm() {"
    yield '    local current="${COMP_WORDS[COMP_CWORD]}" verb="${COMP_WORDS[1]}" options='
    yield "    COMPREPLY=()"
    yield "    if [[ $COMP_CWORD == 1 ]]; then"
    yield f'        COMPREPLY=($(compgen -W {shlex.quote(" ".join(_first_words(verbs)))} -- "$current"))'
    yield "        return"
    yield "    fi"
    yield '    case "$verb" in'
    for first, steps in _families(verbs).items():
        yield f"        {first})"
        yield "            if [[ $COMP_CWORD == 2 ]]; then"
        yield f'                COMPREPLY=($(compgen -W {shlex.quote(" ".join(steps))} -- "$current"))'
        yield "                return"
        yield "            fi"
        yield '            verb="$verb ${COMP_WORDS[2]}" ;;'
    yield "    esac"
    yield '    case "$verb" in'
    yield from _cases(verbs)
    yield "    esac"
    yield '    [[ $current == -* ]] && COMPREPLY=($(compgen -W "$options" -- "$current"))'
    yield "}"
    yield f"complete -o default -F _kinto_orm {PROGRAM}"


def _zsh(verbs: Mapping[str, Words]) -> Iterator[str]:
    yield f"#compdef {PROGRAM}"
    yield f'# zsh completion for {PROGRAM}: eval "$({PROGRAM} completion zsh)"'
    yield "_kinto_orm() {"
    yield '    local verb="$words[2]" options='
    yield "    local -a found"
    yield "    if (( CURRENT == 2 )); then"
    described = (shlex.quote(f"{first}:{summary}") for first, summary in _first_words(verbs).items())
    yield f"        found=({' '.join(described)})"
    yield "        _describe verb found"
    yield "        return"
    yield "    fi"
    yield '    case "$verb" in'
    for first, steps in _families(verbs).items():
        yield f"        {first})"
        yield f"            if (( CURRENT == 3 )); then compadd {' '.join(steps)}; return; fi"
        yield '            verb="$verb $words[3]" ;;'
    yield "    esac"
    yield '    case "$verb" in'
    yield from _cases(verbs)
    yield "    esac"
    yield '    if [[ "$PREFIX" == -* ]]; then compadd -- ${=options}; else _files; fi'
    yield "}"
    yield f"compdef _kinto_orm {PROGRAM}"


def _fish(verbs: Mapping[str, Words]) -> Iterator[str]:
    yield f"# fish completion for {PROGRAM}: {PROGRAM} completion fish | source"
    for first, summary in _first_words(verbs).items():
        yield f"complete -c {PROGRAM} -n __fish_use_subcommand -a {first} -d {shlex.quote(summary)} -f"
    families = _families(verbs)
    for first, steps in families.items():
        unseen = f"__fish_seen_subcommand_from {first}; and not __fish_seen_subcommand_from {' '.join(steps)}"
        yield f"complete -c {PROGRAM} -n {shlex.quote(unseen)} -a {shlex.quote(' '.join(steps))} -f"
    for name, words in verbs.items():
        seen = "; and ".join(f"__fish_seen_subcommand_from {word}" for word in name.split())
        for option in words.options:
            if option.startswith("--"):
                yield f"complete -c {PROGRAM} -n {shlex.quote(seen)} -l {option.removeprefix('--')}"


SHELLS: Mapping[str, Callable[[Mapping[str, Words]], Iterator[str]]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}
"""The shells, and what writes the lines of the script of each."""
