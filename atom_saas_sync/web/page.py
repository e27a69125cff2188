"""The status page: plain HTML, read-only, without external resources, usable with a screen reader.

Anybody who can reach the port can read it, so it contains no paths, names of skills or foreign messages.
"""

from __future__ import annotations

import base64
import html
import re
from datetime import datetime
from hashlib import sha256

from atom_saas_sync.characters import printable
from atom_saas_sync.core.health import ago, watch_is_running, websocket_connected
from atom_saas_sync.model import Health, HealthIssue, PastRun, Status, TrustState
from atom_saas_sync.times import format_time, time_text

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #fff; --soft: #57606a; --line: #d0d7de;
  --good: #116329; --bad: #b3131b; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --paper: #0d1117; --soft: #9da7b1; --line: #3d444d;
  --good: #56d364; --bad: #ff7b72; } }
body { margin: 2rem auto; padding: 0 1rem; max-width: 46rem; font: 1rem/1.5 system-ui, sans-serif;
  color: var(--ink); background: var(--paper); }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
.verdict { font-size: 1.25rem; font-weight: 600; margin: .25rem 0; }
.good { color: var(--good); } .bad { color: var(--bad); } .soft { color: var(--soft); }
ul { padding-left: 1.25rem; margin: .5rem 0; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.5rem; margin: 0; }
dt { color: var(--soft); } dd { margin: 0; font-variant-numeric: tabular-nums; }
.table { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--soft); padding-bottom: .25rem; }
th, td { text-align: left; padding: .3rem .75rem .3rem 0; border-bottom: 1px solid var(--line); white-space: nowrap; }
td.number, th.number { text-align: right; }
a { color: inherit; } a:focus-visible { outline: 3px solid; outline-offset: 2px; }
@media (max-width: 30rem) { dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .5rem; } }
"""
_STYLE_HASH = base64.b64encode(sha256(_STYLE.encode()).digest()).decode()

CONTENT_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_RUNS_SHOWN = 12
# The usual messages of these name files, or repeat a server's text.
_PUBLIC = {
    "never_synced": "No sync of skills has ever succeeded.",
    "sync_failed": "The last sync failed; see the log and `atom-sync doctor`.",
    "websocket_disconnected": "The WebSocket is not connected.",
}
_UNREADABLE = Health((HealthIssue("database", "Could not read the database; see the log.", "`atom-sync doctor`"),))


def status_page(status: Status, health: Health, now: datetime) -> str:
    """Return the page as HTML."""
    verdict = ("good", "healthy") if health.healthy else ("bad", "unhealthy")
    figures = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>\n" for name, text in _figures(status, now))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{verdict[1]}: atom-sync</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<h1>atom-sync</h1>
<p class="verdict {verdict[0]}">{verdict[1].capitalize()}</p>
<p class="soft">as of <time datetime="{format_time(now)}">{now:%Y-%m-%d %H:%M:%S} UTC</time>;
<a href="/">refresh</a></p>
{_troubles("Problems", [_public(trouble.code, trouble.message) for trouble in health.reasons])}
{_troubles("Notices", [_public(trouble.code, trouble.message) for trouble in health.notices])}
<h2 id="figures">Figures</h2>
<dl aria-labelledby="figures">
{figures}</dl>
{_runs(status, now)}
</main>
</body>
</html>
"""


def unreadable_page(now: datetime) -> str:
    """Return the page for an unreadable database."""
    return status_page(Status(read_at=now, database_path=""), _UNREADABLE, now)


def _public(code: str, message: str) -> str:
    return _PUBLIC.get(code, message)


def escape(text: str) -> str:
    """Escape text for HTML."""
    return html.escape(printable(text))


def _troubles(title: str, messages: list[str]) -> str:
    if not messages:
        return ""
    shown = [re.sub("`([^`]+)`", r"<code>\1</code>", escape(message)) for message in messages]
    items = "".join(f"<li>{message}</li>\n" for message in shown)
    return f"<h2>{title}</h2>\n<ul>\n{items}</ul>"


def _figures(status: Status, now: datetime) -> list[tuple[str, str]]:
    sync, websocket = status.sync, status.websocket
    if websocket_connected(websocket, now):
        live = f"connected, last message {ago(websocket.last_message_at, now)}"
    elif watch_is_running(websocket, now):
        live = "not connected" + (", polling" if websocket.fallback_to_polling else ", reconnecting")
    else:
        live = "not running"
    return [
        ("Last successful sync", ago(sync.last_successful_sync_at, now)),
        ("Syncs", f"{sync.total_syncs:,}, {sync.successful_syncs:,} of them successful"),
        ("Running now", ", ".join(sorted(status.running)) or "nothing"),
        ("WebSocket", live),
        ("Skills in the cache", f"{status.skills:,}"),
        ("Categories", f"{status.categories:,}"),
        ("Open conflicts", f"{sum(status.conflicts_open.values()):,}"),
        ("Updates", _updates(status.trust)),
        ("Ratings", f"{status.ratings_pending:,} pending, {status.ratings_failed:,} failed"),
        ("Schedule", "stopped" if status.emergency_stop or status.auto_sync_off else "active"),
    ]


def _updates(trust: TrustState) -> str:
    parts = [f"policy {trust.policy}", f"{trust.waiting:,} waiting"]
    if trust.tripped:
        parts[1] += f", {trust.tripped:,} of them suspicious"
    return "; ".join([*parts, f"{trust.quarantined:,} in quarantine"])


def _runs(status: Status, now: datetime) -> str:
    if not status.runs:
        return ""
    rows = "".join(_run(run, now) for run in status.runs[:_RUNS_SHOWN])
    return f"""<h2>Last runs</h2>
<div class="table" role="region" aria-label="Last runs" tabindex="0">
<table>
<caption>Newest first</caption>
<thead><tr><th scope="col">Run</th><th scope="col">Kind</th><th scope="col">Started</th><th scope="col">Result</th>
<th scope="col" class="number">Seconds</th></tr></thead>
<tbody>
{rows}</tbody>
</table>
</div>"""


def _run(run: PastRun, now: datetime) -> str:
    started = time_text(run.started_at) or ""
    seconds = "" if run.duration_seconds is None else f"{run.duration_seconds:.1f}"
    result = run.status if run.error_type is None else f"{run.status} ({run.error_type})"
    style = {"success": "good", "failed": "bad"}.get(run.status, "soft")
    return (
        f'<tr><th scope="row">{run.id}</th><td>{escape(run.kind)}</td>'
        f'<td><time datetime="{started}">{ago(run.started_at, now)}</time></td>'
        f'<td class="{style}">{escape(result)}</td><td class="number">{seconds}</td></tr>\n'
    )
