"""What asyncpg does with a server, printed so that two servers can be compared."""

import asyncio
import datetime
import decimal
import io
import os
import ssl
import uuid

import asyncpg


def show(title, value):
    print(f"{title}: {value!r}")


async def error(title, action):
    try:
        await action
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncio.TimeoutError) as raised:
        fields = ("severity", "sqlstate", "message", "detail", "hint", "position", "constraint_name")
        show(title, (type(raised).__name__, [getattr(raised, field, None) for field in fields]))
    else:
        show(title, "no error")


def how():
    ca = os.environ.get("PGSSLROOTCERT")
    return {"ssl": ssl.create_default_context(cafile=ca) if ca else False}


async def types(conn):
    for value, name in [
        (42, "int4"), (2**40, "int8"), (1.5, "float8"), (decimal.Decimal("1234.5678"), "numeric"),
        ("tex't ü", "text"), (b"\x00\xff", "bytea"), (True, "bool"), (None, "int4"),
        (datetime.date(2024, 2, 29), "date"), (datetime.datetime(2024, 2, 29, 1, 2, 3), "timestamp"),
        (datetime.timedelta(days=2, seconds=3), "interval"), (uuid.UUID(int=9), "uuid"),
        ('{"a": 1}', "jsonb"), ([1, 2, None], "int4[]"), ([["a"], ["b"]], "text[]"),
        (asyncpg.Range(1, 5), "int4range"), (asyncpg.Point(1, 2), "point"), ((1, "x"), "pair"),
        ("cross", "mood"), (7, "small"),
    ]:
        show(name, await conn.fetchval(f"SELECT $1::{name}", value))
    show("row", dict(await conn.fetchrow("SELECT 1 AS a, ROW(2, 'x')::pair AS b, ARRAY[ROW(3, 'y')::pair] AS c")))
    await conn.set_type_codec("json", encoder=str, decoder=lambda text: ("decoded", text), schema="pg_catalog")
    show("codec", await conn.fetchval("SELECT '[1]'::json"))


async def statements(conn):
    await conn.execute("CREATE TABLE smoke (id int PRIMARY KEY, body text)")
    await conn.executemany("INSERT INTO smoke VALUES ($1, $2)", [(i, f"row {i}") for i in range(500)])
    statement = await conn.prepare("SELECT * FROM smoke WHERE id < $1 ORDER BY id")
    show("attributes", [(a.name, a.type.name) for a in statement.get_attributes()])
    show("parameters", [p.name for p in statement.get_parameters()])
    show("fetched", len(await statement.fetch(100)))
    async with conn.transaction():
        total = 0
        async for row in statement.cursor(400, prefetch=33):
            total += row["id"]
        show("cursor", total)
        cursor = await conn.cursor("SELECT id FROM smoke ORDER BY id")
        await cursor.forward(10)
        show("forward", [row[0] for row in await cursor.fetch(3)])
    await error("double", conn.execute("INSERT INTO smoke VALUES (1, 'again')"))
    await error("many", conn.executemany("INSERT INTO smoke VALUES ($1, $2)", [(900, "x"), (900, "y")]))
    show("none", await conn.fetchval("SELECT count(*) FROM smoke WHERE id = 900"))
    await error("syntax", conn.fetch("SELEC 1"))
    await error("argument", conn.fetch("SELECT $1::int", "text"))
    await conn.execute("ALTER TABLE smoke ADD more int")
    show("changed", len((await conn.fetchrow("SELECT * FROM smoke WHERE id = 1"))))
    show("tag", await conn.execute("UPDATE smoke SET more = 1 WHERE id < 7; SELECT 1"))
    try:
        async with conn.transaction(isolation="serializable"):
            await conn.execute("DELETE FROM smoke")
            raise ValueError
    except ValueError:
        show("rolled back", await conn.fetchval("SELECT count(*) FROM smoke"))


async def copies(conn):
    records = [(i, f"copied {i}", None) for i in range(1000, 9000)]
    show("records", await conn.copy_records_to_table("smoke", records=records))
    out = io.BytesIO()
    show("out", await conn.copy_from_query("SELECT id FROM smoke WHERE id > $1", 8000, output=out))
    show("bytes", len(out.getvalue()))
    show("in", await conn.copy_to_table("smoke", source=io.BytesIO(b"9000,x,\n"), format="csv"))
    await error("bad copy", conn.copy_to_table("smoke", source=io.BytesIO(b"no number\n"), format="csv"))
    show("alive", await conn.fetchval("SELECT 1"))


async def others(conn):
    heard = asyncio.get_running_loop().create_future()
    notices = []
    conn.add_log_listener(lambda _, message: notices.append((message.severity, message.message)))
    await conn.add_listener("bell", lambda _, pid, channel, payload: heard.set_result((channel, payload)))
    await conn.execute("NOTIFY bell, 'ding'")
    show("heard", await asyncio.wait_for(heard, 5))
    await conn.execute("DO $$ BEGIN RAISE NOTICE 'said'; END $$")
    await asyncio.sleep(0.2)
    show("notices", notices)
    await error("timeout", conn.fetch("SELECT pg_sleep(30)", timeout=0.4))
    show("after", await conn.fetchval("SELECT 'still here'"))
    task = asyncio.create_task(conn.execute("SELECT pg_sleep(30)"))
    await asyncio.sleep(0.3)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        show("cancelled", await conn.fetchval("SELECT 'still here'"))
    show("large", len(await conn.fetchval("SELECT repeat('x', $1)", 8 << 20)))
    show("reset", await conn.reset())


async def main():
    settings = {"jit": "off", "application_name": "asyncpg smoke", "app.tenant": "nine"}
    conn = await asyncpg.connect(server_settings=settings, **how())
    show("version", conn.get_server_version()[0])
    show("settings", [await conn.fetchval("SELECT current_setting($1)", name) for name in settings])
    await conn.execute("DROP TABLE IF EXISTS smoke")
    await conn.execute("CREATE TYPE mood AS ENUM ('calm', 'cross'); CREATE TYPE pair AS (x int, y text); CREATE DOMAIN small AS int CHECK (VALUE < 10)")
    for part in (types, statements, copies, others):
        await part(conn)
    await conn.execute("DROP TABLE smoke; DROP TYPE mood, pair; DROP DOMAIN small")
    await conn.close()
    async with asyncpg.create_pool(min_size=2, max_size=4, **how()) as pool:
        show("pool", sum(await asyncio.gather(*(pool.fetchval("SELECT $1::int", i) for i in range(60)))))


asyncio.run(main())
