"""`completion`: the shell scripts that call our completion (cli/completing.py)."""

from __future__ import annotations

from typing import Annotated

import typer

from atom_saas_sync.characters import printable
from atom_saas_sync.cli.output import say
from atom_saas_sync.errors import UsageError

# Readline splits words at = and :, and replaces only the last part; we complete the shell's whole word.
_BASH = r"""
_atom_sync() {
    local word words=() line value colon=${COMP_WORDBREAKS//[^=:]/} i
    for ((i = 1; i <= COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if ((${#words[@]})) && [[ $word == [=:]* || ${words[${#words[@]} - 1]} == *[=:] ]]; then
            words[${#words[@]} - 1]+=$word
        else
            words+=("$word")
        fi
    done
    ((${#words[@]})) || words=("")
    word=${words[${#words[@]} - 1]}
    [[ $colon && $word == *[=:]* ]] && word=${word%"${word##*[=:]}"} || word=
    COMPREPLY=()
    while IFS= read -r line; do
        value=${line%%$'\t'*}
        value=${value#"$word"}
        printf -v value %q "$value"
        COMPREPLY+=("$value")
    done < <("${COMP_WORDS[0]}" __complete "${words[@]}" 2>/dev/null)
}
complete -o default -F _atom_sync atom-sync
"""

_ZSH = r"""
#compdef atom-sync
_atom_sync() {
    local line value meaning
    local -a described
    for line in "${(@f)$("${words[1]}" __complete "${(@Q)words[2,CURRENT]}" 2>/dev/null)}"; do
        value=${${line%%$'\t'*}//:/\\:} meaning=${line#*$'\t'}
        [[ -n $line ]] && described+=("$value${meaning:+:$meaning}")
    done
    if (( $#described )); then
        _describe -V atom-sync described
    else
        _files
    fi
}
if [[ ${funcstack[1]} == _atom-sync ]]; then
    _atom_sync "$@"
else
    (( $+functions[compdef] )) || { autoload -Uz compinit && compinit; }
    compdef _atom_sync atom-sync
fi
"""

_FISH = r"""
function __atom_sync_complete
    set -l words (commandline -opc) (commandline -ct)
    $words[1] __complete $words[2..] 2>/dev/null
end
function __atom_sync_has_answers
    test (count (__atom_sync_complete)) -gt 0
end
complete -c atom-sync -f -n __atom_sync_has_answers -a '(__atom_sync_complete)'
"""

_SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def completion(
    shell: Annotated[str, typer.Argument(metavar="SHELL", help="bash, zsh or fish.")],
) -> None:
    """Print the script for tab completion in a shell.

    Evaluate it in ~/.bashrc or ~/.zshrc, or save it where the shell looks for completions.
    """
    if shell not in _SCRIPTS:
        raise UsageError(f"invalid SHELL {printable(shell)!r}: expected {', '.join(_SCRIPTS)}")
    say(_SCRIPTS[shell].strip())
