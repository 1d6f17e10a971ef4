"""What psycopg 3 does with a server, printed so that two servers can be compared."""

import asyncio
import datetime
import decimal
import threading
import uuid

import psycopg
from psycopg import pq, sql
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb


def show(title, value):
    print(f"{title}: {value!r}")


def error(title, action):
    try:
        action()
    except psycopg.Error as raised:
        diag = raised.diag
        show(title, (type(raised).__name__, diag.severity, diag.sqlstate, diag.message_primary,
                     diag.message_detail, diag.message_hint, diag.statement_position,
                     diag.constraint_name, diag.table_name, diag.source_function))
    else:
        show(title, "no error")


VALUES = [
    42, 2**40, -1.5, decimal.Decimal("12345678901234567890.123"), "tex't\n\\ü", b"\x00\xff'\\",
    True, None, datetime.date(2024, 2, 29), datetime.datetime(2024, 2, 29, 12, 30, 15, 123456),
    datetime.timedelta(days=3, seconds=5), uuid.UUID(int=7), Jsonb({"a": [1, None, "ü"]}),
    [1, 2, None], ["a", "b,c", 'd"e'], [[1, 2], [3, 4]],
]


def types(conn):
    for binary in (False, True):
        for value in VALUES:
            row = conn.execute("SELECT v, pg_typeof(v)::text FROM (SELECT %s AS v) AS s", (value,), binary=binary).fetchone()
            show(f"type {binary}", row)
    cursor = conn.execute("SELECT 1 AS a, 'x'::varchar(7) AS b, 2.5::numeric(7,2) AS c")
    show("description", [(c.name, c.type_code, c.display_size, c.precision, c.scale) for c in cursor.description])


def transactions(conn):
    conn.execute("DROP TABLE IF EXISTS smoke, later")
    conn.execute("CREATE TABLE smoke (id int PRIMARY KEY, body text NOT NULL)")
    with conn.transaction():
        conn.execute("INSERT INTO smoke VALUES (1, 'one')")
        error("inner", lambda: nested(conn))
        show("in", conn.info.transaction_status.name)
        conn.execute("INSERT INTO smoke VALUES (3, 'three')")
    show("rows", conn.execute("SELECT * FROM smoke ORDER BY id").fetchall())
    error("unique", lambda: conn.execute("INSERT INTO smoke VALUES (1, 'again')"))
    error("null", lambda: conn.execute("INSERT INTO smoke VALUES (9, NULL)"))
    error("syntax", lambda: conn.execute("SELEC 1"))
    error("zero", lambda: conn.execute("SELECT 1/%s", (0,)))
    error("column", lambda: conn.execute("SELECT nothing FROM smoke"))
    show("status", conn.info.transaction_status.name)


def nested(conn):
    with conn.transaction():
        conn.execute("INSERT INTO smoke VALUES (2, 'two')")
        conn.execute("INSERT INTO smoke VALUES (1, 'again')")


def many(conn):
    with conn.cursor(row_factory=dict_row) as cursor:
        cursor.executemany("INSERT INTO smoke VALUES (%s, %s) RETURNING id", [(i, f"row {i}") for i in range(10, 30)], returning=True)
        ids = []
        while True:
            ids.append(cursor.fetchone()["id"])
            if not cursor.nextset():
                break
        show("many", ids)
    for _ in range(12):  # prepared from the fifth time on
        row = conn.execute("SELECT count(*) FROM smoke WHERE id > %s", (5,)).fetchone()
    show("prepared", (row, conn.execute("SELECT count(*) FROM pg_prepared_statements").fetchone()))
    conn.execute("DROP TABLE IF EXISTS later; CREATE TABLE later (a int)")
    for i in range(12):
        if i == 8:
            conn.execute("ALTER TABLE later ADD b int")
        error(f"replan {i}", lambda: show("cols", len(conn.execute("SELECT * FROM later", prepare=True).description)))


def copies(conn):
    with conn.cursor() as cursor:
        with cursor.copy("COPY smoke FROM STDIN") as copy:
            for i in range(100, 5100):
                copy.write_row((i, f"copied\t{i}\\"))
        show("copied", cursor.rowcount)
        with cursor.copy("COPY smoke (id, body) FROM STDIN (FORMAT binary)") as copy:
            copy.set_types(["int4", "text"])
            for i in range(6000, 6010):
                copy.write_row((i, "binary"))
        total = 0
        with cursor.copy("COPY (SELECT * FROM smoke ORDER BY id) TO STDOUT") as copy:
            for row in copy.rows():
                total += len(row[1])
        show("out", total)
        with cursor.copy("COPY smoke TO STDOUT (FORMAT binary)") as copy:
            show("binary", sum(len(block) for block in copy))

    def broken():
        with conn.cursor().copy("COPY smoke FROM STDIN") as copy:
            copy.write(b"7000\tfine\n1\tdouble\n")

    def given_up():
        with conn.cursor().copy("COPY smoke FROM STDIN") as copy:
            copy.write_row((7000, "never"))
            raise ValueError("changed my mind")

    error("broken", broken)
    try:
        given_up()
    except ValueError as raised:
        show("given up", str(raised))
    show("left", conn.execute("SELECT count(*) FROM smoke WHERE id >= 7000").fetchone())


def pipelines(conn):
    with conn.pipeline() as pipeline:
        cursors = [conn.execute("SELECT %s::int * 2", (i,)) for i in range(300)]
        pipeline.sync()
        show("pipeline", sum(cursor.fetchone()[0] for cursor in cursors))

    def failing():
        with conn.pipeline():
            conn.execute("INSERT INTO smoke VALUES (8000, 'kept or not')")
            conn.execute("SELECT 1/0")
            conn.execute("SELECT 'never'")

    error("failing pipeline", failing)
    show("after", conn.execute("SELECT count(*) FROM smoke WHERE id = 8000").fetchone())


def cursors(conn):
    with conn.transaction():
        with conn.cursor("walker", scrollable=True) as cursor:
            cursor.execute("SELECT id FROM smoke ORDER BY id")
            cursor.itersize = 700
            show("server cursor", sum(row[0] for row in cursor))
            cursor.scroll(3, mode="absolute")
            show("scrolled", cursor.fetchmany(2))
    with conn.cursor("held", withhold=True) as cursor:
        cursor.execute("SELECT id FROM smoke ORDER BY id LIMIT 3")
        show("held", cursor.fetchall())
    show("stream", sum(row[0] for row in conn.cursor().stream("SELECT generate_series(1, 3000)")))


def notifications(dsn):
    with psycopg.connect(dsn, autocommit=True) as listener, psycopg.connect(dsn, autocommit=True) as speaker:
        listener.execute("LISTEN bell")
        speaker.execute("SELECT pg_notify('bell', 'ding ü')")
        speaker.execute("NOTIFY bell")
        heard = [(n.channel, n.payload, n.pid == speaker.info.backend_pid) for n in listener.notifies(timeout=5, stop_after=2)]
        show("heard", heard)
        notices = []
        speaker.add_notice_handler(lambda diag: notices.append((diag.severity, diag.message_primary)))
        speaker.execute("DO $$ BEGIN RAISE NOTICE 'one'; RAISE WARNING 'two'; END $$")
        show("notices", notices)


def cancels(conn, dsn):
    timer = threading.Timer(0.4, conn.cancel_safe)
    timer.start()
    error("cancelled", lambda: conn.execute("SELECT pg_sleep(30)"))
    timer.join()
    show("alive", conn.execute("SELECT 'still here'").fetchone())
    conn.execute("SET statement_timeout = '200ms'")
    error("timeout", lambda: conn.execute("SELECT pg_sleep(30)"))
    conn.execute("RESET statement_timeout")


def settings(dsn):
    options = "-c search_path=pg_catalog -c geqo=off -c app.tenant=seven"
    with psycopg.connect(dsn, options=options, application_name="smoke ü", client_encoding="latin1") as conn:
        row = conn.execute("SELECT current_setting('search_path'), current_setting('geqo'), current_setting('app.tenant')")
        show("settings", row.fetchone())
        show("encoding", (conn.info.encoding, conn.info.parameter_status("client_encoding"), conn.execute("SELECT 'é'").fetchone()))
        show("status", [conn.info.parameter_status(name) for name in ("server_version", "TimeZone", "DateStyle", "integer_datetimes", "standard_conforming_strings", "is_superuser", "session_authorization")])
        show("name", conn.execute("SHOW application_name").fetchone())
    with psycopg.connect(dsn) as conn:
        conn.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        conn.read_only = True
        show("level", conn.execute("SHOW transaction_isolation").fetchone())
        error("read only", lambda: conn.execute("CREATE TABLE never (a int)"))
    with psycopg.connect(dsn, autocommit=True) as conn:
        show("pid", conn.info.backend_pid == conn.execute("SELECT pg_backend_pid()").fetchone()[0])


def two_phase(dsn):
    with psycopg.connect(dsn) as conn:
        xid = conn.xid(1, "smoke", "branch")
        conn.tpc_begin(xid)
        conn.execute("INSERT INTO smoke VALUES (9000, 'two-phase')")
        conn.tpc_prepare()
        with psycopg.connect(dsn) as other:
            show("prepared", len(other.tpc_recover()))
        conn.tpc_commit()
        show("committed", conn.execute("SELECT body FROM smoke WHERE id = 9000").fetchone())


async def asynchronously(dsn):
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
        async with conn.cursor() as cursor:
            await cursor.execute("SELECT generate_series(1, %s)", (1000,))
            show("async", sum([row[0] async for row in cursor]))


def main():
    dsn = ""  # libpq reads the environment
    show("libpq", pq.version() > 0)
    with psycopg.connect(dsn, autocommit=True) as conn:
        for part in (types, transactions, many, copies, pipelines, cursors):
            part(conn)
        cancels(conn, dsn)
        large = "x" * (8 << 20)
        show("large", conn.execute("SELECT %s::text = %s::text, octet_length(%s::bytea)", (large, large, large.encode())).fetchone())
        name = sql.Identifier('odd "name"')
        conn.execute(sql.SQL("CREATE TABLE {} (a int)").format(name))
        conn.execute(sql.SQL("DROP TABLE {}").format(name))
    notifications(dsn)
    settings(dsn)
    two_phase(dsn)
    asyncio.run(asynchronously(dsn))
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("DROP TABLE smoke, later")


main()
