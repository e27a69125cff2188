"""One connection to a PostgreSQL server, and its transactions; database.py opens it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from types import TracebackType
from typing import Self

import psycopg
from psycopg import sql
from psycopg.abc import Params
from psycopg.pq import TransactionStatus

from atom_saas_sync.core.server_address import ServerAddress
from atom_saas_sync.errors import Locked
from atom_saas_sync.store.postgresql.failures import translated_errors
from atom_saas_sync.store.postgresql.link import Link
from atom_saas_sync.store.postgresql.notifications import Notifications
from atom_saas_sync.store.postgresql.rows import Row
from atom_saas_sync.store.postgresql.session import (
    Session,
    advisory_class,
    advisory_key,
    begin_session,
    connect,
    located,
    refuse_transaction_pooling,
    require_writable,
    settings,
)


class Connection:
    """One connection to the server; threads may share it if they take turns."""

    def __init__(
        self, address: ServerAddress, *, busy_timeout_seconds: float, writes: bool = True, perhaps: bool = False
    ) -> None:
        """Connect. Raises ConfigError or DatabaseError.

        Readers fail at once if the server is overloaded; writers retry for the busy timeout. With `perhaps`, a server
        that cannot be written to is only refused by the first write.
        """
        self.address = located(address)
        self.busy_timeout_seconds = busy_timeout_seconds
        self.writes = writes
        self._perhaps = perhaps
        self.held: dict[str, int] = {}
        """The run locks that this connection holds, with their tokens (lock.py)."""
        self.notifications = Notifications()
        self.connection, self.session = self._connected()

    @contextmanager
    def transaction(
        self, *, durable: bool = True, bulk: bool = False, wait_seconds: float | None = None, together: bool = False
    ) -> Iterator[psycopg.Connection[Row]]:
        """Write in one transaction: everything in the block, or nothing if it raises.

        Our writers are serialised by an advisory lock. Without `durable`, a server crash within the next second may
        lose the transaction; use it for data that the next run fetches again. With `bulk`, the triggers do nothing and
        the caller does their work. Waits for other writers up to the busy timeout, or `wait_seconds`. With `together`,
        statements are sent as in `pipelined`: read results late, or after the block.

        Raises DatabaseError for every failure of the server, and Locked if another run has taken over a run lock of
        this connection.
        """
        self._begin_anew()
        with self._translated():
            self._begin(durable=durable, bulk=bulk, wait_seconds=wait_seconds)
            try:
                with self._pipeline() if together else nullcontext():
                    yield self.connection
                    self._command("COMMIT")
            except BaseException:
                self._roll_back()
                raise

    @contextmanager
    def pipelined(self, question: str, *, durable: bool = False) -> Iterator[tuple[psycopg.Connection[Row], Row]]:
        """Write pages or messages: one transaction with `bulk`, in few round trips.

        `question` is a query without parameters; its single row arrives with the round trip that begins the
        transaction. Reading any other result costs one more. All other statements are sent with the commit, so their
        errors may be raised as late as at the end of the block. Server-side cursors and COPY are not possible, and
        `rowcount` is unknown until a result is read.

        Raises what `transaction` raises.
        """
        self._begin_anew()
        with self._translated():
            answer = self._begin(durable=durable, bulk=True, wait_seconds=None, question=question)
            try:
                with self._pipeline():
                    yield self.connection, answer[0]
                    self._command("COMMIT")
            except BaseException:
                self._roll_back()
                raise

    @contextmanager
    def reading(self) -> Iterator[psycopg.Connection[Row]]:
        """Open a read snapshot. It neither blocks writers nor waits for them, and works on a standby.

        Raises DatabaseError for every failure of the server.
        """
        self._begin_anew()
        with self._translated():
            self._start(f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY{self._set_up}")
            try:
                yield self.connection
            finally:
                self._roll_back()

    @contextmanager
    def asking(self, *settings: str) -> Iterator[psycopg.Connection[Row]]:
        """Open a read snapshot for queries that are all sent before a result is read: two round trips in all.

        If results are only read after the block, it takes one. `settings` are statements to begin with.

        Raises DatabaseError for every failure of the server.
        """
        self._begin_anew()
        with self._translated():
            try:
                with self._pipeline():
                    begin = f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY{self._set_up}"
                    for statement in (*begin.split("; "), *settings):
                        self._command(statement)
                    yield self.connection
                    self._command("ROLLBACK")
            finally:
                self._roll_back()

    def ask(self, query: str, values: Params | None = None) -> list[Row]:
        """Return the rows of one query, which is a snapshot of its own, in one round trip.

        Raises DatabaseError for every failure of the server.
        """
        self._begin_anew()
        if self.session.is_pooled:  # its settings are those of a transaction
            with self.asking() as connection:
                cursor = connection.execute(query, values)
            return cursor.fetchall()
        with self._translated():
            try:
                return self.connection.execute(query, values).fetchall()
            except psycopg.OperationalError:
                if not self.connection.closed:
                    raise
            self.reconnect()
            return self.connection.execute(query, values).fetchall()

    @property
    def host(self) -> str:
        """Return the name of this host among those that share the database."""
        return self.address.this_host or os.uname().nodename

    @property
    def schema(self) -> str:
        """Return the name of the schema with our tables."""
        return self.address.schema

    def require_session(self) -> None:
        """Refuse a pooler in transaction mode; takes a second connection to find out. Raises ConfigError."""
        if self.session.is_pooled:
            with self._beside() as other:
                refuse_transaction_pooling(self.session.backend, other.session.backend, self.address)

    def reconnect(self) -> None:
        """Reconnect between two transactions, and reacquire the run locks that were held.

        Raises DatabaseError, and Locked if another run has held such a lock since.
        """
        self.connection.close()
        self.connection, self.session = self._connected()
        for kind, token in self.held.items():
            if not (self.take(kind) and self._name_as_holder(kind, token)):
                raise _overtaken(kind)

    def take(self, kind: str) -> bool:
        """Try to take the lock for a kind of run until the session ends."""
        question = "SELECT pg_try_advisory_lock(%s, %s)"
        with self._translated():
            row = self.connection.execute(question, (advisory_class(self.schema), advisory_key(kind))).fetchone()
        return bool(row and row[0])

    def release(self, kind: str) -> None:
        """Release the lock for a kind of run; a lost session has already released it."""
        self.held.pop(kind, None)
        if self.connection.closed:
            return
        numbers = advisory_class(self.schema), advisory_key(kind)
        with self._translated():
            try:
                self.connection.execute("SELECT pg_advisory_unlock(%s, %s)", numbers)
            except psycopg.OperationalError:
                if not self.connection.closed:
                    raise

    def close(self) -> None:
        """Close the connection; closing it again does nothing."""
        self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _name_as_holder(self, kind: str, token: int) -> bool:
        """Let others find out who holds a lock that was taken again; tell whether nobody else has held it since."""
        with self._translated():
            table = sql.Identifier(self.schema, "run_lock")  # behind a pooler, nothing is set up between transactions
            change = sql.SQL("UPDATE {} SET backend = %s WHERE kind = %s AND token = %s RETURNING 1").format(table)
            return self.connection.execute(change, (self.session.backend, kind, token)).fetchone() is not None

    def _beside(self) -> Connection:
        return Connection(self.address, busy_timeout_seconds=self.busy_timeout_seconds, writes=False)

    def _connected(self) -> tuple[Link, Session]:
        patience = self.busy_timeout_seconds if self.writes else 0
        connection = connect(self.address, writes=self.writes, patience_seconds=patience, perhaps=self._perhaps)
        try:
            session = begin_session(
                connection,
                self.address,
                busy_timeout_seconds=self.busy_timeout_seconds,
                writes=self.writes and not self._perhaps,
            )
        except BaseException:
            connection.close()
            raise
        return connection, session

    def _translated(self) -> AbstractContextManager[None]:
        return translated_errors(self.address, busy_timeout_seconds=self.busy_timeout_seconds)

    @property
    def _set_up(self) -> str:
        """Return the settings for each transaction if a pooler shares the session with other clients."""
        if not self.session.is_pooled:
            return ""
        values = settings(self.address, self.busy_timeout_seconds, self.session.version)
        return "".join(f"; SELECT set_config('{name}', '{value}', true)" for name, value in values.items())

    def _begin(self, *, durable: bool, bulk: bool, wait_seconds: float | None, question: str = "") -> list[Row]:
        """Begin a write transaction in one round trip; return the rows of `question`."""
        if self._perhaps:
            require_writable(self.session, self.address)
        lock = f"SELECT pg_advisory_xact_lock({advisory_class(self.schema)}, {advisory_key('write')})"
        # On other levels, the snapshot is from before the wait for the lock, without what others wrote meanwhile.
        begin = f"BEGIN ISOLATION LEVEL READ COMMITTED{self._set_up}"
        statements = [begin, f"SET LOCAL synchronous_commit = {'on' if durable else 'off'}"]
        if wait_seconds is not None:
            statements.append(f"SET LOCAL lock_timeout = {max(1, round(wait_seconds * 1000))}")
        if bulk:
            statements.append("SET LOCAL atom_sync.bulk = on")
        statements.append(lock)
        if self.held:
            statements.append("SELECT kind, token FROM run_lock")
        if question:
            statements.append(question)
        cursor = self._start("; ".join(statements))
        answers = [cursor.fetchall() if cursor.description else []]
        while cursor.nextset():
            answers.append(cursor.fetchall() if cursor.description else [])
        asked = answers.pop() if question else []
        if self.held:
            tokens = {kind: int(token) for kind, token in answers.pop()}
            for kind, token in self.held.items():
                if tokens.get(kind) != token:
                    self._roll_back()
                    raise _overtaken(kind)
        return asked

    @contextmanager
    def _pipeline(self) -> Iterator[None]:
        with self.connection.pipeline() as pipeline:
            try:
                yield
            except BaseException:
                # Otherwise the driver would log consequences of the first error at the end.
                with suppress(psycopg.Error):
                    pipeline.sync()
                raise

    def _start(self, statements: str) -> psycopg.Cursor[Row]:
        """Begin a transaction; reconnect once if the connection broke since the last one."""
        try:
            return self._command(statements)
        except psycopg.Error as error:
            if not (isinstance(error, psycopg.OperationalError) and self.connection.closed):
                self._roll_back()
                raise
        self.reconnect()
        return self._command(statements)

    def _command(self, statements: str) -> psycopg.Cursor[Row]:
        """Execute our own statements, several in one round trip."""
        return self.connection.cursor().execute(statements, binary=False)

    def _roll_back(self) -> None:
        if self.connection.info.transaction_status in {TransactionStatus.INTRANS, TransactionStatus.INERROR}:
            # If the connection breaks here, the server rolls back on its own; report the error that ended the block.
            with suppress(psycopg.OperationalError):
                self._command("ROLLBACK")

    def _begin_anew(self) -> None:
        """Refuse nesting; the limits on statements hold again."""
        if self.connection.info.transaction_status in {TransactionStatus.INTRANS, TransactionStatus.INERROR}:
            raise RuntimeError("a transaction is open already on this connection: transactions do not nest")
        self.connection.is_hurried = True


def _overtaken(kind: str) -> Locked:
    return Locked(
        f"another {kind} run has taken the lock while this one had no connection; nothing more was written",
        hint="the other run does the work; what was committed before is kept",
    )
