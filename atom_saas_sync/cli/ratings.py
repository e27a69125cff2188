"""`ratings`: add, list, retry and restore ratings. `sync ratings` sends them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atom_saas_sync.characters import printable, shell_argument
from atom_saas_sync.cli.identify import whole_id, whole_rating_id
from atom_saas_sync.cli.output import GlobalOptions, age, counted, note, print_json, say
from atom_saas_sync.cli.pager import paged
from atom_saas_sync.cli.tables import Column, print_lines, print_table
from atom_saas_sync.errors import NotFound, NotLocal, UsageError
from atom_saas_sync.model import ListedRating

if TYPE_CHECKING:
    from atom_saas_sync.usecases.ports import Store, UserRatings

app = typer.Typer(help="Rate skills; list and retry ratings.", no_args_is_help=True)

_STATES = ("pending", "sent", "failed")

_Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
_Skill = Annotated[str | None, typer.Option("--skill", metavar="ID", help="Only ratings of this skill.")]
_User = Annotated[str | None, typer.Option("--user", metavar="USER", help="Only ratings by this user.")]
_Limit = Annotated[int, typer.Option("--limit", min=0, metavar="N", help="Maximum number of rows; 0: no limit.")]


@app.command()
def add(
    ctx: typer.Context,
    skill_id: Annotated[str, typer.Argument(metavar="SKILL_ID", help="The skill's id.")],
    stars: Annotated[str, typer.Argument(metavar="STARS", help="1 to 5.")],
    comment: Annotated[
        str | None,
        typer.Option("--comment", metavar="TEXT", help="Up to 1,000 characters; omit to keep the old comment."),
    ] = None,
    user: Annotated[str | None, typer.Option("--user", metavar="USER", help="User to rate as. Default: you.")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Rate a skill that is not in the cache, by its full id.")
    ] = False,
    as_json: _Json = False,
) -> None:
    """Rate a skill, or change your rating of it. The next `sync ratings` sends it."""
    from atom_saas_sync.cli import runtime
    from atom_saas_sync.core.outgoing import rating_problem

    number = int(stars) if stars.isascii() and stars.isdigit() and len(stars) == 1 else None
    who = user if user is not None else runtime.current_user()
    problem = rating_problem(skill_id, who, number, comment)
    if problem is not None or number is None:
        raise UsageError(f"invalid rating: {problem}", hint="nothing was stored")
    with _ratings(ctx.obj, create=True, adopt=True) as (store, ratings):
        if not force:
            skill_id = whole_id(store, skill_id)
        if not ratings.is_cached(skill_id):
            unknown = f"no skill {printable(skill_id)} is in the cache"
            if not force:
                raise NotFound(unknown, hint="`atom-sync sync skills` may fetch it; --force rates it anyway")
            note(f"warning: {unknown}; the marketplace may refuse the rating")
        rating = ratings.add(skill_id, who, number, comment, now=datetime.now(UTC))
    if as_json:
        print_json({"rating": _line(rating)})
        return
    state = {"pending": "the next `atom-sync sync ratings` sends it", "sent": "it was sent before"}
    say(f"rating {rating.id}: {rating.stars} of 5 for {printable(skill_id)}; {state.get(rating.state, 'failed')}")


@app.command("list")
@paged
def list_ratings(
    ctx: typer.Context,
    state: Annotated[str | None, typer.Option("--state", metavar="STATE", help="pending, sent or failed.")] = None,
    skill: _Skill = None,
    user: _User = None,
    limit: _Limit = 100,
    as_json: _Json = False,
) -> None:
    """List local ratings, the newest first."""
    if state is not None and state not in _STATES:
        raise UsageError(f"invalid --state {state!r}: expected {', '.join(_STATES)}")
    with _ratings(ctx.obj) as (store, ratings):
        skill = skill and whole_id(store, skill)
        found, total = ratings.listed(state=state, skill_id=skill, user_id=user, limit=limit or None)
        names = _names(store, found)
    if as_json:
        print_json(
            {"ratings": [{**_line(each), "skill_name": names.get(each.skill_id)} for each in found], "total": total}
        )
        return
    print_table(
        [
            Column("id"),
            Column("stars", drop=2),
            Column("skill"),
            Column("name", drop=1, cut=True, least=4),
            Column("user", drop=3, cut=True),
            Column("state", drop=4),
            Column("changed", drop=5),
        ],
        [
            [
                printable(each.id),
                str(each.stars),
                each.skill_id,
                names.get(each.skill_id, ""),
                each.user_id,
                each.state,
                age(each.updated_at),
            ]
            for each in found
        ],
    )
    _print_total(len(found), total, "rating")


@app.command()
@paged
def show(
    ctx: typer.Context,
    rating_id: Annotated[str, typer.Argument(metavar="ID", help="The rating's id, or its first 4 or more characters.")],
    as_json: _Json = False,
) -> None:
    """Show one rating: what it says, whether it was sent, and what went wrong."""
    with _ratings(ctx.obj) as (store, ratings):
        rating = ratings.find(whole_rating_id(store, rating_id))
    if rating is None:
        raise _unknown([rating_id])
    if as_json:
        print_json({"rating": _line(rating)})
        return
    used_up = {"retry_count", "max_retries"} if rating.next_retry_at is None else set()
    lines = []
    for name, value in _line(rating).items():
        if name in used_up:
            continue  # a refused rating has no retries left, although it was sent only once
        if name == "replaced" and value is not None:
            lines.append(
                f"replaced: {value['rating']} of 5, written here at {value['updated_at']}; "
                f"`atom-sync ratings restore {shell_argument(rating.id)}` puts it back"
            )
            if value["comment"]:
                lines.append(f"replaced comment: {value['comment']}")
        elif value is not None:
            text = str(value)
            lines.append(f"{name.replace('_', ' ')}: {text if name == 'comment' else printable(text)}")
    print_lines(lines)


@app.command()
@paged
def failed(ctx: typer.Context, limit: _Limit = 100, as_json: _Json = False) -> None:
    """List the ratings that could not be sent, why, and when they are tried again."""
    from atom_saas_sync.times import time_text

    with _ratings(ctx.obj) as (store, ratings):
        found, total = ratings.listed(state="failed", limit=limit or None)
        names = _names(store, found)
    if as_json:
        rows = [{**_line(each), "rating_id": each.id, "skill_name": names.get(each.skill_id)} for each in found]
        print_json({"failed": rows, "total": total})
        return
    print_table(
        [
            Column("id"),
            Column("skill"),
            Column("name", drop=1, cut=True, least=4),
            Column("retries", drop=4),
            Column("next try", drop=3),
            Column("why", drop=2, cut=True),
        ],
        [
            [
                printable(each.id),
                each.skill_id,
                names.get(each.skill_id, ""),
                f"{each.retry_count}/{each.max_retries}" if each.next_retry_at else "none left",
                time_text(each.next_retry_at) or "waits for you",
                each.error_message or "",
            ]
            for each in found
        ],
    )
    _print_total(len(found), total, "failed rating")


@app.command()
def retry(
    ctx: typer.Context,
    rating_ids: Annotated[
        list[str] | None, typer.Argument(metavar="ID…", help="The ratings' ids, or their first 4 or more characters.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every failed rating.")] = False,
    as_json: _Json = False,
) -> None:
    """Take ratings off the failed list: the next `sync ratings` sends them again."""
    from atom_saas_sync.cli import runtime

    ids = rating_ids or []
    if bool(ids) == everything:
        raise UsageError("name ratings by their ids, or pass --all")
    with _ratings(ctx.obj, adopt=True) as (store, ratings):
        ids = [whole_rating_id(store, each) for each in ids]
        waiting = [each.id for each in ratings.listed(state="failed")[0]]
        missing = sorted(set(ids) - set(waiting))
        if missing:
            raise _unknown(missing, "failed ")
        retried = ratings.retry(waiting if everything else ids, actor=runtime.current_user(), now=datetime.now(UTC))
    if as_json:
        print_json({"retried": retried, "total": len(retried)})
    else:
        say(f"{counted(len(retried), 'rating')} pending again; `atom-sync sync ratings` sends them")


@app.command()
def restore(
    ctx: typer.Context,
    rating_id: Annotated[str, typer.Argument(metavar="ID", help="The rating's id, or its first 4 or more characters.")],
    as_json: _Json = False,
) -> None:
    """Put back your rating that a newer one of the marketplace replaced; the next `sync ratings` sends it again."""
    from atom_saas_sync.cli import runtime

    with _ratings(ctx.obj, adopt=True) as (store, ratings):
        rating_id = whole_rating_id(store, rating_id)
        if ratings.find(rating_id) is None:
            raise _unknown([rating_id])
        rating = ratings.restore(rating_id, actor=runtime.current_user(), now=datetime.now(UTC))
    if rating is None:
        raise NotFound(
            f"rating {rating_id}: nothing was replaced, so there is nothing to restore",
            hint=f"`atom-sync ratings show {shell_argument(rating_id)}` shows what it says",
        )
    if as_json:
        print_json({"rating": _line(rating)})
    else:
        say(
            f"rating {rating.id}: {rating.stars} of 5 for {printable(rating.skill_id)} again; "
            "the next `atom-sync sync ratings` sends it"
        )


@app.command()
def delete(
    ctx: typer.Context,
    rating_ids: Annotated[list[str], typer.Argument(metavar="ID…", help="The ratings' full ids.")],
    as_json: _Json = False,
) -> None:
    """Delete ratings that were never sent: pending ones, and those that the marketplace refused."""
    from atom_saas_sync.cli import runtime
    from atom_saas_sync.times import format_time

    ids, clock = list(dict.fromkeys(rating_ids)), runtime.RunClock()
    with (
        _ratings(ctx.obj, adopt=True) as (store, ratings),
        store.exclusive("ratings", command="ratings delete", now=lambda: format_time(clock.now()), sleep=clock.sleep),
    ):
        found = {each: ratings.find(each) for each in ids}
        if missing := [each for each, rating in found.items() if rating is None]:
            raise _unknown(missing)
        for each, rating in found.items():
            if rating is not None and (rating.state == "sent" or rating.remote_rating_id is not None):
                raise NotLocal(
                    f"rating {printable(each)} was sent: the marketplace has it; nothing was deleted",
                    hint=f"`atom-sync ratings add {shell_argument(rating.skill_id)} STARS` changes it",
                )
        deleted = ratings.delete(ids, actor=runtime.current_user(), now=clock.now())
    if as_json:
        print_json({"deleted": deleted, "total": len(deleted)})
    else:
        say(f"{counted(len(deleted), 'rating')} deleted")


@contextmanager
def _ratings(
    options: GlobalOptions, *, create: bool = False, adopt: bool = False
) -> Iterator[tuple[Store, UserRatings]]:
    from atom_saas_sync.cli import runtime
    from atom_saas_sync.store import open_store

    with open_store(runtime.settings_of(options).database, create=create, adopt=adopt) as store:
        yield store, store.own_ratings()


def _unknown(ids: Sequence[str], kind: str = "") -> NotFound:
    return NotFound(
        f"there is no {kind}rating {', '.join(map(printable, ids))}", hint="`atom-sync ratings list` shows the ids"
    )


def _names(store: Store, listed: Sequence[ListedRating]) -> Mapping[str, str]:
    return store.ids().names(each.skill_id for each in listed)


def _line(rating: ListedRating) -> dict[str, Any]:
    from atom_saas_sync.core.reports import rating_document

    return rating_document(rating)


def _print_total(shown: int, total: int, what: str) -> None:
    more = f"; {total - shown:,} more: see --limit" if total > shown else ""
    note(f"{counted(total, what)}{more}")
