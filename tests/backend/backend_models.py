"""SQLAlchemy models of the Atom backend (2026-08): its seven tables, and those that they reference."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import JSON, DateTime, Engine, ForeignKey, NullPool, UniqueConstraint, create_engine, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

LONG_AGO = datetime(2026, 1, 5, 9, 30, 0, 123456, tzinfo=UTC)


_JSON = JSON().with_variant(JSONB(), "postgresql")


class Base(DeclarativeBase):
    type_annotation_map = {datetime: DateTime(timezone=True), dict[str, Any]: _JSON}  # noqa: RUF012 - SQLAlchemy's


class Tenant(Base):
    __tablename__ = "tenants"
    id: Mapped[str] = mapped_column(primary_key=True)


class User(Base):
    __tablename__ = "users"
    id: Mapped[str] = mapped_column(primary_key=True)


class Skill(Base):
    __tablename__ = "skills"
    id: Mapped[str] = mapped_column(primary_key=True)


class Dated(Base):
    __abstract__ = True
    created_at: Mapped[datetime | None] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime | None] = mapped_column(server_default=func.now(), onupdate=func.now())


class Cached(Dated):
    __abstract__ = True
    id: Mapped[int] = mapped_column(primary_key=True)
    expires_at: Mapped[datetime]
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), default="default")
    hit_count: Mapped[int] = mapped_column(default=0)
    last_hit_at: Mapped[datetime | None]


class SkillCache(Cached):
    __tablename__ = "skill_cache"
    skill_id: Mapped[str] = mapped_column(unique=True, index=True)
    skill_data: Mapped[dict[str, Any]]


class CategoryCache(Cached):
    __tablename__ = "category_cache"
    category_name: Mapped[str] = mapped_column(unique=True)
    category_data: Mapped[dict[str, Any]]


class SyncState(Base):
    __tablename__ = "sync_state"
    id: Mapped[str] = mapped_column(primary_key=True)
    device_id: Mapped[str | None]
    user_id: Mapped[str | None]
    status: Mapped[str] = mapped_column(default="idle")
    last_sync: Mapped[datetime | None]
    skills_cached: Mapped[int] = mapped_column(default=0)
    categories_cached: Mapped[int] = mapped_column(default=0)
    last_error: Mapped[str | None]
    error_count: Mapped[int] = mapped_column(default=0)
    last_sync_at: Mapped[datetime | None]
    last_successful_sync_at: Mapped[datetime | None]
    auto_sync_enabled: Mapped[bool] = mapped_column(default=True)
    total_syncs: Mapped[int] = mapped_column(default=0)
    successful_syncs: Mapped[int] = mapped_column(default=0)
    failed_syncs: Mapped[int] = mapped_column(default=0)
    pending_actions_count: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime | None] = mapped_column(server_default=func.now())


class WebSocketState(Base):
    __tablename__ = "websocket_state"
    id: Mapped[int] = mapped_column(primary_key=True)
    connected: Mapped[bool] = mapped_column(default=False)
    ws_url: Mapped[str | None]
    last_connected_at: Mapped[datetime | None]
    last_message_at: Mapped[datetime | None]
    disconnect_reason: Mapped[str | None]
    reconnect_attempts: Mapped[int] = mapped_column(default=0)
    consecutive_failures: Mapped[int] = mapped_column(default=0)
    max_reconnect_attempts: Mapped[int] = mapped_column(default=10)
    fallback_to_polling: Mapped[bool] = mapped_column(default=False)
    fallback_started_at: Mapped[datetime | None]
    next_ws_attempt_at: Mapped[datetime | None]
    rate_limit_messages_per_sec: Mapped[int] = mapped_column(default=100)
    websocket_enabled: Mapped[bool] = mapped_column(default=True)


class ConflictLog(Base):
    __tablename__ = "conflict_log"
    id: Mapped[int] = mapped_column(primary_key=True)
    skill_id: Mapped[str] = mapped_column(ForeignKey("skills.id"), index=True)
    conflict_type: Mapped[str]
    severity: Mapped[str]
    local_data: Mapped[dict[str, Any]]
    remote_data: Mapped[dict[str, Any]]
    resolution_strategy: Mapped[str | None]
    resolved_data: Mapped[dict[str, Any] | None]
    resolved_at: Mapped[datetime | None]
    resolved_by: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime | None] = mapped_column(server_default=func.now())
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), default="default")


class SkillRating(Dated):
    __tablename__ = "skill_ratings"
    __table_args__ = (UniqueConstraint("skill_id", "user_id", name="uq_skill_user_rating"),)
    id: Mapped[str] = mapped_column(primary_key=True, default=lambda: str(uuid.uuid4()))
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), default="default")
    skill_id: Mapped[str] = mapped_column(ForeignKey("skills.id"))
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"))
    rating: Mapped[int]
    review: Mapped[str | None]
    synced_to_saas: Mapped[bool] = mapped_column(default=False)
    synced_at: Mapped[datetime | None]
    remote_rating_id: Mapped[str | None]
    is_flagged: Mapped[bool | None] = mapped_column(default=False)
    is_visible: Mapped[bool | None] = mapped_column(default=True)
    helpful_count: Mapped[int | None] = mapped_column(default=0)
    not_helpful_count: Mapped[int | None] = mapped_column(default=0)


class FailedRatingUpload(Base):
    __tablename__ = "failed_rating_uploads"
    id: Mapped[str] = mapped_column(primary_key=True, default=lambda: str(uuid.uuid4()))
    rating_id: Mapped[str] = mapped_column(ForeignKey("skill_ratings.id"))
    error_message: Mapped[str]
    failed_at: Mapped[datetime]
    last_retry_at: Mapped[datetime | None]
    retry_count: Mapped[int] = mapped_column(default=0)
    max_retries: Mapped[int] = mapped_column(default=3)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), default="default")


MODELS: tuple[type[Base], ...] = (
    *(SkillCache, CategoryCache, SyncState, WebSocketState, ConflictLog),
    *(SkillRating, FailedRatingUpload),
)


def backend(database: Path | str, *, create: bool = True) -> Engine:
    """Return the backend connected to a file or a database on a server. `create_all` creates missing tables."""
    # Without a pool, no connection outlives its session.
    if isinstance(database, Path):
        engine = create_engine(f"sqlite:///{database}", connect_args={"timeout": 30}, poolclass=NullPool)
    else:
        engine = create_engine(database.replace("postgresql:", "postgresql+psycopg:", 1), poolclass=NullPool)
    if create:
        Base.metadata.create_all(engine)
    return engine


def fill(engine: Engine, skills: list[dict[str, Any]], number: int = 20) -> None:
    """Fill all seven tables, with times in both forms."""
    with Session(engine) as session:
        session.add_all([Tenant(id="default"), User(id="user"), *(Skill(id=each["skill_id"]) for each in skills)])
        session.flush()  # there are no relationships that define the order
        for index, each in enumerate(skills[:number]):
            name, later = each["skill_id"], LONG_AGO + timedelta(minutes=index)
            session.add(SkillCache(skill_id=name, skill_data={**each, "description": "old"}, expires_at=later))
            session.add(CategoryCache(category_name=f"c{index}", category_data={"name": f"c{index}"}, expires_at=later))
            resolved = index % 2 == 1
            session.add(
                ConflictLog(
                    skill_id=name,
                    conflict_type="CONTENT_MISMATCH",
                    severity="HIGH",
                    local_data={**each, "description": "old"},
                    remote_data=each,
                    resolved_data=each if resolved else None,
                    resolution_strategy="remote_wins" if resolved else None,
                    resolved_at=later if resolved else None,
                    resolved_by="admin" if resolved else None,
                )
            )
            rating = SkillRating(
                id=str(uuid.UUID(int=index)),
                skill_id=name,
                user_id="user",
                rating=1 + index % 5,
                review="good",
                synced_to_saas=index % 2 == 0,
                updated_at=later,
            )
            session.add(rating)
            session.flush()
            session.add(FailedRatingUpload(rating_id=rating.id, error_message="no", failed_at=later, retry_count=3))
        session.add(SyncState(id="marketplace_sync", device_id="marketplace_sync", last_successful_sync_at=LONG_AGO))
        session.add(WebSocketState(id=1, reconnect_attempts=4))
        session.commit()
    if engine.name != "sqlite":
        return
    with engine.begin() as connection:  # the format in which atom-sync and other programs write times
        connection.exec_driver_sql("UPDATE skill_cache SET expires_at = '2026-01-05T09:30:00Z' WHERE id % 2")
        connection.exec_driver_sql("UPDATE skill_ratings SET updated_at = '2026-01-05T09:30:00Z' WHERE rating % 2")


def rows(engine: Engine) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of each table as the ORM reads them."""
    with Session(engine) as session:
        return {
            model.__tablename__: [
                {column.key: getattr(row, column.key) for column in model.__table__.columns}
                for row in session.query(model)
            ]
            for model in MODELS
        }
