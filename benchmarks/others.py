"""What people would use instead, for comparison: an administrator's script, in two forms, and a general loader.

The script is what one writes in a morning: `curl` and `jq` for each page, and `sqlite-utils upsert` (`loop`), or all
pages through one pipe (`pipe`); the search index by `enable-fts`, kept up by triggers in the loop. The loader is dlt
with its `rest_api` source, merging into SQLite. None of them notices conflicts, deletions or local edits.

    python benchmarks/others.py loop|pipe URL TOKEN DATABASE
    .venv-bench/bin/python benchmarks/others.py dlt URL TOKEN DATABASE
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_COLUMNS = "name description tags category code"
_FETCH = 'curl -sf -H "Authorization: Bearer $TOKEN" "$URL/api/v1/skills?page=$page&page_size=1000"'

LOOP = f"""
set -e
page=1
while {_FETCH} | jq -c .skills > "$DATABASE.page" && [ "$(jq length "$DATABASE.page")" -gt 0 ]; do
    sqlite-utils upsert "$DATABASE" skills "$DATABASE.page" --pk skill_id --alter
    [ $page -gt 1 ] || sqlite-utils enable-fts "$DATABASE" skills {_COLUMNS} --create-triggers
    page=$((page + 1))
done
"""

PIPE = f"""
set -e
pages() {{
    page=1
    while {_FETCH} > "$DATABASE.page" && [ "$(jq '.skills | length' "$DATABASE.page")" -gt 0 ]; do
        jq -c '.skills[]' "$DATABASE.page"
        page=$((page + 1))
    done
}}
pages | sqlite-utils upsert "$DATABASE" skills - --nl --pk skill_id --alter
sqlite-utils enable-fts "$DATABASE" skills {_COLUMNS}
"""


def run_script(script: str, url: str, token: str, database: str) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {"PATH": path, "URL": url, "TOKEN": token, "DATABASE": database}
    subprocess.run(["sh", "-c", script], env=environment, check=True)


def run_dlt(url: str, token: str, database: str) -> None:
    os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
    import dlt
    from dlt.sources.rest_api import rest_api_source

    source = rest_api_source(
        {
            "client": {
                "base_url": f"{url}/api/v1/",
                "auth": {"type": "bearer", "token": token},
                "paginator": {"type": "page_number", "base_page": 1, "total_path": None, "stop_after_empty_page": True},
            },
            "resource_defaults": {"primary_key": "skill_id", "write_disposition": "merge"},
            "resources": [
                {
                    "name": "skills",
                    "endpoint": {"path": "skills", "data_selector": "skills", "params": {"page_size": 1000}},
                }
            ],
        }
    )
    pipeline = dlt.pipeline(
        pipeline_name="benchmark",
        destination=dlt.destinations.sqlalchemy(credentials=f"sqlite:///{database}"),
        dataset_name="main",
        pipelines_dir=f"{database}.pipelines",
    )
    pipeline.run(source)


if __name__ == "__main__":
    what, *arguments = sys.argv[1:]
    if what == "dlt":
        run_dlt(*arguments)
    else:
        run_script({"loop": LOOP, "pipe": PIPE}[what], *arguments)
