"""Patterns for what code and instructions in any language can do. Every repetition is bounded: texts are hostile."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from atom_saas_sync.core.gate.facts import Fact, fact

BASE64 = re.compile(
    r"(?<![A-Za-z0-9+/=_-])(?:[A-Za-z0-9+/]{24,}|[A-Za-z0-9_-]{24,})={0,2}(?![A-Za-z0-9+/=_-])",
)
SHELL_FENCE = re.compile(
    r"^[ \t]{0,9}(?:```|~~~)[ \t]{0,9}(?:bash|sh|shell|zsh|console)\b[^\n]{0,99}\n", re.MULTILINE | re.IGNORECASE
)
FENCE = re.compile(r"\n[ \t]{0,9}(?:```|~~~)")

_URL = re.compile(r"\b(https?|wss?|ftps?|git|ssh)://([^\s\"'`<>()\[\]{}|\\^,;]{1,2000})", re.IGNORECASE)
_ADDRESS = re.compile(r"(?<![\w.-])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?![\w.-])")
_NETWORK_TOOL = re.compile(r"\b(?:curl|wget|ssh|scp|rsync|nc|ncat|netcat|telnet|nslookup|dig)[ \t]([^\n|;&]{1,200})")
_BARE_HOST = re.compile(r"(?<![\w./:-])((?:[a-z0-9][a-z0-9-]{0,62}\.){1,6}[a-z]{2,24})(?![\w.(-])", re.IGNORECASE)
_FILE_ENDINGS = re.compile(
    r".*\.(?:sh|py|js|ts|mjs|json|md|txt|html|css|ya?ml|toml|zip|t?gz|tar|log|csv|xml|pdf|png|jpg|mp[34]|wav|sql)"
)
_DOWNLOAD = r"(curl|wget|iwr|irm|invoke-webrequest|invoke-restmethod)"
_SHELL = r"(sh|bash|zsh|dash|ksh|fish|python3?|node|perl|ruby|php|iex|invoke-expression)"
_PIPED = re.compile(
    rf"\b{_DOWNLOAD}\b[^\n|]{{0,300}}\|[ \t]{{0,9}}(?:sudo[ \t]{{1,9}})?(?:/[\w/]{{1,30}}/)?{_SHELL}\b", re.IGNORECASE
)
_RUN_DOWNLOADED = re.compile(
    rf"\b(?:eval|source|{_SHELL})\b[^\n|;]{{0,30}}[$<`]\(?[ \t]{{0,9}}{_DOWNLOAD}\b", re.IGNORECASE
)
_DYNAMIC = re.compile(
    r"(?<![\w.])(eval|exec|compile|__import__)\(|\b(new[ \t]{1,9}Function|importlib\.import_module|marshal\.loads|"
    r"pickle\.loads?|vm\.runIn\w{1,20}|Invoke-Expression|iex)\b|^[ \t]{0,40}(eval)[ \t]",
    re.MULTILINE,
)
_PROCESS = re.compile(
    r"\b(subprocess\.(?:run|call|check_call|check_output|Popen|getoutput|getstatusoutput)|os\.(?:system|popen|exec\w{1,3}|"
    r"spawn\w{1,3}|posix_spawnp?)|pty\.spawn|asyncio\.create_subprocess_(?:exec|shell)|child_process(?:[\"\']\))?\.\w{1,20}|"
    r"(?:exec|spawn|execFile)Sync|execFile|spawn|execa|Deno\.Command|Bun\.spawn)\(\s{0,40}\[?\s{0,40}"
    r"(?:[fFrRbBuU]{0,2}([\"'`])([^\"'`\n]{0,200})\2)?"
)
_ENV = re.compile(
    r"process\.env\.([A-Za-z_]\w{0,99})|process\.env\[[\"']([^\"'\]\n]{1,99})|\$env:(\w{1,99})|"
    r"os\.environ(?:\.get\(|\.pop\(|\.setdefault\(|\[)[\"']([^\"'\n]{1,99})|os\.getenv\([\"']([^\"'\n]{1,99})|"
    r"Deno\.env\.get\([\"']([^\"'\n]{1,99})|\$\{?([A-Z_][A-Z0-9_]{1,99})\b"
)
_ALL_ENV = re.compile(r"\bos\.environ\b(?!\.(?:get|pop|setdefault)\(|\[)|\bprocess\.env\b(?![.\[])|\bprintenv\b")
_ROOTS = (
    "etc|home|root|usr|var|tmp|opt|dev|proc|sys|bin|sbin|lib|mnt|media|srv|run|boot|"
    "Users|Library|Applications|System|Volumes|private"
)
_PATH = re.compile(
    r"(?<![\w./\\~$:-])(?:(?:~|\$HOME|\$\{HOME\}|\.\.)/[\w./@+-]{0,150}|"
    rf"%(?:APPDATA|LOCALAPPDATA|USERPROFILE|TEMP)%[\w\\.-]{{0,150}}|[A-Za-z]:\\[\w\\.-]{{1,150}}|"
    rf"/(?:{_ROOTS})(?:/[\w.@+~-]{{1,99}}){{0,12}}(?![\w/]))"
)
_FILE_CALL = re.compile(r"\bfs(?:\.promises|p)?\.\w{1,30}\(\s{0,20}[\"'`](/[^\"'`\n]{1,200})")
_NAME = r"[\"']([^\"'./\n][^\"'\n]{0,100})[\"']"
_MODULE = re.compile(
    rf"\brequire\(\s{{0,9}}{_NAME}|\bimport\b[^\n;\"']{{0,200}}?\bfrom[ \t]{{1,9}}{_NAME}",
)
_NODE = re.compile(
    r"node:.*|(?:assert|buffer|child_process|crypto|dns|events|fs|http|http2|https|net|os|path|process|querystring|readline|stream|"
    r"timers|tls|tty|url|util|v8|vm|worker_threads|zlib)(?:/.*)?"
)
_HOME = re.compile(r"\bPath\.home\(|\bexpanduser\(|\bhomedir\(")
_WORDS = r"((?:[ \t]{1,9}[^\s;&|`\"'()<>]{1,100}){1,20})"
_INSTALLED = re.compile(
    r"\b(?:(?:pip3?|pipx|uv|npm|pnpm|yarn|bun|gem|cargo|go|brew|apt|apt-get|apk|dnf|yum|conda)[ \t]{1,9}"
    rf"(?:install|add|i|get)\b{_WORDS}|(?:npx|uvx|bunx)\b{_WORDS})"
)
_COMMAND = re.compile(
    r"(?:^|[|;&(`])[ \t]{0,40}(?:\$[ \t])?(?:sudo[ \t]{1,9}|[A-Z_]{1,40}=[^\s;|&]{0,100}[ \t]{1,9})?"
    r"((?:[a-z_]|[.~]{0,2}/)[\w./+-]{0,80})(?=[\s;|)&]|$)",
    re.MULTILINE,
)
_BUILTIN = re.compile(
    r"if|then|else|elif|fi|for|while|until|do|done|case|esac|in|function|select|time|return|break|continue|exit|local|"
    r"export|set|unset|shift|read|echo|printf|cd|pwd|test|true|false|trap|wait|alias|declare|let|source|eval|exec|sudo"
)


# A search for plain text is far faster than a pattern: most texts contain none of these.
_NEEDED: dict[re.Pattern[str], tuple[str, ...]] = {
    _URL: ("://",),
    _NETWORK_TOOL: ("curl", "wget", "ssh", "scp", "rsync", "nc", "netcat", "telnet", "nslookup", "dig"),
    _PIPED: ("|",),
    _RUN_DOWNLOADED: ("$(", "<(", "`"),
    _DYNAMIC: (
        "eval",
        "exec",
        "compile",
        "__import__",
        "Function",
        "import_module",
        "loads",
        "pickle",
        "vm.",
        "Invoke",
        "iex",
    ),
    _PROCESS: ("subprocess", "os.", "pty.", "child_process", "Sync", "execFile", "spawn", "execa", "Deno", "Bun."),
    _ENV: ("env", "$"),
    _ALL_ENV: ("environ", "process.env", "printenv"),
    _PATH: ("/", "\\", "%"),
    _FILE_CALL: ("fs",),
    _MODULE: ("require", "import"),
    _HOME: ("home", "expanduser"),
    _INSTALLED: ("install", "add", "get", "npx", "uvx", "bunx", " i "),
}


def code_facts(text: str) -> Iterator[Fact]:
    """Yield what the patterns for all languages find."""
    yield from _hosts(text)
    for match in _found(_PROCESS, text):
        yield fact("command", (match[3] or "").split(" ", 1)[0] or match[1])
    for match in _found(_ENV, text):
        yield fact("env", next(filter(None, match.groups())))
    yield from (Fact("env", "*") for _ in _found(_ALL_ENV, text))
    for match in _found(_PATH, text):
        yield fact("path", match[0].rstrip(".") if len(match[0]) > 2 else match[0])  # noqa: PLR2004 - `..`
    yield from (fact("path", match[1]) for match in _found(_FILE_CALL, text))
    yield from (Fact("path", "~") for _ in _found(_HOME, text))
    yield from _packages(text)
    yield from _dynamic(text)


def _packages(text: str) -> Iterator[Fact]:
    for match in _found(_MODULE, text):
        name = match[1] or match[2]
        if _NODE.fullmatch(name) is None:
            yield fact("package", name)
        elif name.removeprefix("node:") == "child_process":
            yield Fact("command", "child_process")
    for match in _found(_INSTALLED, text):
        names = [word for word in (match[1] or match[2]).split() if not word.startswith(("-", "."))]
        yield from (fact("package", name) for name in (names if match[1] else names[:1]))


def shell_facts(text: str) -> Iterator[Fact]:
    """Yield the commands that a shell script runs."""
    for match in _COMMAND.finditer(text):
        if _BUILTIN.fullmatch(match[1]) is None:
            yield fact("command", match[1])


def _found(pattern: re.Pattern[str], text: str) -> Iterable[re.Match[str]]:
    return pattern.finditer(text) if any(needed in text for needed in _NEEDED[pattern]) else ()


def _dynamic(text: str) -> Iterator[Fact]:
    for match in _found(_DYNAMIC, text):
        yield fact("dynamic", next(filter(None, match.groups())))
    for match in _found(_PIPED, text):
        yield fact("dynamic", f"{match[1]} | {match[2]}".lower())
    for match in _found(_RUN_DOWNLOADED, text):
        yield fact("dynamic", f"{match[2]} | {match[1] or 'sh'}".lower())


def _hosts(text: str) -> Iterator[Fact]:
    for match in _found(_URL, text):
        rest = match[2].rstrip(".:!?*_")
        place, _, path = rest.partition("/")
        name = re.split("[?#]", place)[0].rpartition("@")[2].partition(":")[0].lower()
        if name:
            yield fact("host", name)
            if path or "?" in place:
                yield fact("host", f"{match[1].lower()}://{rest}")
    for match in _ADDRESS.finditer(text):
        yield fact("host", match[0])
    for tool in _found(_NETWORK_TOOL, text):
        for match in _BARE_HOST.finditer(tool[1].replace("@", " ")):
            name = match[1].lower()
            if _FILE_ENDINGS.fullmatch(name) is None:
                yield fact("host", name)
