"""`cache`: the age of the entries, and removing expired ones."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from atom_saas_sync.characters import printable
from atom_saas_sync.cli.asking import confirm_loss
from atom_saas_sync.cli.output import counted, note, print_json, print_some, say
from atom_saas_sync.cli.pager import paged
from atom_saas_sync.cli.tables import print_facts
from atom_saas_sync.errors import UsageError
from atom_saas_sync.model import TIMER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from atom_saas_sync.model import CacheStatistics
    from atom_saas_sync.usecases.ports import Store
    from atom_saas_sync.usecases.purge_cache import Purged

app = typer.Typer(help="Show the age of the cache; remove expired entries.", no_args_is_help=True)

_Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


@app.command()
@paged
def stats(ctx: typer.Context, as_json: _Json = False) -> None:
    """Show counts, ages, stale and expired entries, the hit rate and the size on disk."""
    from atom_saas_sync.cli import runtime
    from atom_saas_sync.store import open_store

    now = datetime.now(UTC)
    with open_store(runtime.load(ctx.obj).database, create=False) as store:
        statistics = store.figures().statistics(now)
    document = _document(statistics, now)
    if as_json:
        print_json(document)
        return
    print_facts(_lines(statistics, document))


@app.command()
@paged
def purge(
    ctx: typer.Context,
    everything: Annotated[bool, typer.Option("--all", help="Every entry that a sync can fetch again.")] = False,
    older_than: Annotated[
        str | None,
        typer.Option(
            "--older-than", metavar="AGE", help="Entries last confirmed longer ago than AGE, such as 36h or 7d."
        ),
    ] = None,
    include_local: Annotated[
        bool, typer.Option("--include-local", help="With --all: also local edits and skills that exist only here.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be removed; remove nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before local edits are removed.")] = False,
    scheduled: Annotated[
        bool, typer.Option("--scheduled", help="Started by a timer: does nothing unless ENABLE_SCHEDULER is true.")
    ] = False,
    as_json: _Json = False,
) -> None:
    """Remove expired entries. Local edits stay, and so does everything while the marketplace cannot be reached."""
    from atom_saas_sync.cli import runtime
    from atom_saas_sync.cli.session import SCHEDULER_OFF, daily_run
    from atom_saas_sync.store import open_store
    from atom_saas_sync.usecases.purge_cache import PurgeOptions, purge_cache

    if include_local and not everything:
        raise UsageError("--include-local requires --all")
    if everything and older_than is not None:
        raise UsageError("--all and --older-than exclude each other")
    settings = runtime.load(ctx.obj)
    wanted = partial(
        PurgeOptions,
        older_than=None if older_than is None else _duration(older_than),
        everything=everything,
        include_local=include_local,
        strict=settings.cache_strict_ttl,
    )
    if scheduled and not settings.scheduler_enabled:
        _skip("scheduler_off", SCHEDULER_OFF, as_json=as_json)
    with open_store(settings.database, create=False, adopt=not scheduled) as store:
        if scheduled:
            _skip_if_switched_off(store, as_json=as_json)
        lifetime, actor, now = store.lifetime(), runtime.current_user(), datetime.now(UTC)
        confirmed: tuple[str, ...] = ()
        would_go: list[str] = []
        if include_local and not dry_run:
            confirmed = purge_cache(lifetime, wanted(dry_run=True), actor=actor, now=now).removed.local_ids
            _confirm(_named(store, confirmed), yes=yes, as_json=as_json)
        options = wanted(dry_run=dry_run, confirmed=frozenset(confirmed))
        if dry_run:
            purged = purge_cache(lifetime, options, actor=actor, now=now)
            would_go = [] if as_json else _named(store, purged.removed.skills)
        else:
            with daily_run(settings.database, store, "purge", timer=TIMER if scheduled else None, by=actor) as counts:
                if counts is None:
                    _skip("fresh", "another host has removed what expired: nothing done", as_json=as_json)
                purged = purge_cache(lifetime, options, actor=actor, now=now)
                counts.update(purged.counts)
    _report(purged, would_go, dry_run=dry_run, as_json=as_json)


def _named(store: Store, ids: Sequence[str]) -> list[str]:
    """Return a line for each skill: its id, and its name if it has one."""
    names = store.ids().names(ids)
    return [f"{each}  {names[each]}" if each in names else each for each in ids]


def _confirm(lines: list[str], *, yes: bool, as_json: bool) -> None:
    edits = counted(len(lines), "local edit")
    confirm_loss(lines, what=edits, question="Remove them? The audit log keeps a copy.", yes=yes, as_json=as_json)


def _skip_if_switched_off(store: Store, *, as_json: bool) -> None:
    from atom_saas_sync.cli.session import AUTO_SYNC_OFF, STOPPED

    runs = store.runs()
    if runs.scheduling_stopped():
        _skip("stopped", STOPPED, as_json=as_json)
    if runs.auto_sync_is_off():
        _skip("scheduler_off", AUTO_SYNC_OFF, as_json=as_json)


def _skip(reason: str, why: str, *, as_json: bool) -> NoReturn:
    if as_json:
        counts = dict.fromkeys(("skills", "categories", "local", "protected", "kept_stale"), 0)
        print_json({"dry_run": False, **counts, "reason": reason, "marketplace_reached_at": None})
    note(why)
    raise typer.Exit


def _report(purged: Purged, would_go: list[str], *, dry_run: bool, as_json: bool) -> None:
    from atom_saas_sync.times import format_time

    removed, kept = purged.removed, purged.kept_stale
    reached = format_time(purged.reached_at) if purged.reached_at else None
    if as_json:
        print_json(
            {
                "dry_run": dry_run,
                "skills": len(removed.skills),
                "categories": len(removed.categories),
                "local": removed.local,
                "protected": removed.protected if kept is None else kept.protected,
                "kept_stale": 0 if kept is None else len(kept.skills) + len(kept.categories),
                "reason": None if kept is None else "stale_if_error",
                "marketplace_reached_at": reached,
                **({"skill_ids": list(removed.skills)} if dry_run else {}),
            }
        )
    elif kept is not None:
        since = f"since {reached}" if reached else "so far"
        say(
            f"nothing removed: the marketplace has not been reached {since}, so "
            f"{counted(len(kept.skills), 'expired skill')} and "
            f"{counted(len(kept.categories), 'category', 'categories')} are kept and served as stale"
        )
    else:
        verb = "would be removed" if dry_run else "removed"
        say(
            f"{counted(len(removed.skills), 'skill')} and "
            f"{counted(len(removed.categories), 'category', 'categories')} {verb}"
        )
        print_some(would_go)
    if kept is not None and (kept.skills or kept.categories):
        note("  → a sync confirms them again; --all removes them, and so does ATOM_SAAS_CACHE_STRICT_TTL")
    if removed.protected:
        note(f"kept, because edited here or only here: {removed.protected} (--all --include-local removes them too)")


def _duration(text: str) -> timedelta:
    found = re.fullmatch(r"(\d{1,6})([smhd])", text)
    if not found:
        raise UsageError(f"invalid --older-than {printable(text)!r}: expected a duration such as 36h, 90m or 2d")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def _document(statistics: CacheStatistics, now: datetime) -> dict[str, Any]:
    from atom_saas_sync.times import time_text

    reads = statistics.reads
    asked = sum(reads.values())
    return {
        "skills": statistics.skills,
        "edited": statistics.edited,
        "only_here": statistics.only_here,
        "stale": statistics.stale,
        "expired": statistics.expired,
        "categories": statistics.categories,
        "categories_expired": statistics.expired_categories,
        "oldest_confirmed_at": time_text(statistics.oldest_confirmed_at),
        "newest_confirmed_at": time_text(statistics.newest_confirmed_at),
        "oldest_age_seconds": _age(statistics.oldest_confirmed_at, now),
        "newest_age_seconds": _age(statistics.newest_confirmed_at, now),
        "requests": dict(reads),
        "hit_rate": round((reads["hit"] + reads["stale"]) / asked, 4) if asked else None,
        "entry_hits": statistics.hits_of_entries,
        "size_bytes": statistics.size_bytes,
        "marketplace_reached_at": time_text(statistics.marketplace_reached_at),
    }


def _age(moment: datetime | None, now: datetime) -> int | None:
    return None if moment is None else max(0, int((now - moment).total_seconds()))


def _lines(statistics: CacheStatistics, document: dict[str, Any]) -> list[tuple[str, str]]:
    from atom_saas_sync.core.health import size

    reads = statistics.reads
    expired_categories = counted(statistics.expired_categories, "category", "categories")
    rate = "-" if document["hit_rate"] is None else f"{document['hit_rate']:.1%}"
    hits, misses = counted(reads["hit"], "hit"), counted(reads["miss"], "miss", "misses")
    return [
        (
            "skills",
            f"{statistics.skills:,} ({statistics.edited:,} edited here, {statistics.only_here:,} only here)",
        ),
        ("categories", str(statistics.categories)),
        ("stale", f"{statistics.stale:,} not confirmed for 24 hours"),
        ("expired", f"{counted(statistics.expired, 'skill')}, {expired_categories}"),
        (
            "last confirmed",
            f"{document['newest_confirmed_at'] or '-'} (the oldest: {document['oldest_confirmed_at'] or '-'})",
        ),
        ("marketplace reached", document["marketplace_reached_at"] or "never"),
        (
            "hit rate",
            f"{rate} ({hits}, {reads['stale']:,} stale, {misses})",
        ),
        ("size on disk", size(statistics.size_bytes)),
    ]
