"""The file suffix for a skill's code in an editor, so that the editor recognizes the language."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

_BY_TYPE = {
    **dict.fromkeys(("python", "py"), ".py"),
    **dict.fromkeys(("shell", "bash", "sh"), ".sh"),
    **dict.fromkeys(("nodejs", "node", "javascript", "js"), ".js"),
    **dict.fromkeys(("markdown", "md", "prompt", "prompt_only"), ".md"),
}
_BY_INTERPRETER = {"python": ".py", "sh": ".sh", "bash": ".sh", "dash": ".sh", "zsh": ".sh", "node": ".js"}
_SHEBANG = re.compile(r"#!\s*(\S+)(?:[ \t]+(?:-\S+[ \t]+)*(\S+))?")


def code_suffix(skill_type: object, code: str) -> str:
    """Return `.py`, `.sh`, `.js` or `.md` by the skill's type, else by the first line of its code, else `.txt`."""
    if isinstance(skill_type, str) and (found := _BY_TYPE.get(skill_type.lower())):
        return found
    if not (shebang := _SHEBANG.match(code)):
        return ".txt"
    program = PurePosixPath(shebang[1]).name
    if program == "env":
        program = shebang[2] or ""
    return _BY_INTERPRETER.get(program.rstrip("0123456789."), ".txt")
