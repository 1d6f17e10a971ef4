// What node-postgres does with a server, printed so that two servers can be compared.
'use strict';

const fs = require('fs');
const { once } = require('events');
const { pipeline } = require('stream/promises');
const { Readable, Writable } = require('stream');
const { Client, Pool } = require('pg');
const Cursor = require('pg-cursor');
const QueryStream = require('pg-query-stream');
const copy = require('pg-copy-streams');

const show = (title, value) => console.log(`${title}: ${JSON.stringify(value)}`);
const ca = process.env.PGSSLROOTCERT;
const how = () => ({ ssl: ca ? { ca: fs.readFileSync(ca, 'utf8') } : false });

async function error(title, action) {
  try {
    await action();
    show(title, 'no error');
  } catch (raised) {
    const { severity, code, message, detail, hint, position, constraint, table, routine } = raised;
    show(title, { severity, code, message, detail, hint, position, constraint, table, routine });
  }
}

async function queries(client) {
  const all = await client.query("SELECT 1 AS one, 'x'::text AS two, NULL AS three, true AS four, now() > '2000-01-01' AS five");
  show('row', [all.rows, all.fields.map((f) => [f.name, f.dataTypeID, f.format])]);
  const values = [1, 'tex\'t ü', null, true, Buffer.from([0, 255]), ['a', 'b,c'], { a: 1 }];
  show('values', (await client.query('SELECT $1::int, $2::text, $3::text, $4::bool, $5::bytea, $6::text[], $7::jsonb', values)).rows);
  show('several', (await client.query('SELECT 1; SELECT 2 AS b; CREATE TABLE smoke (id int PRIMARY KEY, body text)')).map((r) => [r.command, r.rowCount]));
  for (let i = 0; i < 3; i += 1) {
    await client.query({ name: 'insert', text: 'INSERT INTO smoke VALUES ($1, $2)', values: [i, `row ${i}`] });
  }
  show('array', (await client.query({ text: 'SELECT * FROM smoke ORDER BY id', rowMode: 'array' })).rows);
  show('binary', (await client.query({ text: 'SELECT id FROM smoke WHERE id = $1', values: [2], binary: true })).rows);
  await error('double', () => client.query("INSERT INTO smoke VALUES (1, 'again')"));
  await error('syntax', () => client.query('SELEC 1'));
  await error('bound', () => client.query('SELECT $1::int', ['none']));
  await error('name', () => client.query({ name: 'insert', text: 'SELECT 1' }));
  await client.query('BEGIN');
  await error('zero', () => client.query('SELECT 1/0'));
  await error('aborted', () => client.query('SELECT 1'));
  await client.query('ROLLBACK');
  const many = await Promise.all([...Array(200).keys()].map((i) => client.query('SELECT $1::int AS i', [i])));
  show('queued', many.reduce((sum, r) => sum + r.rows[0].i, 0));
}

async function streams(client) {
  const lines = Readable.from((function* () {
    for (let i = 10; i < 5010; i += 1) yield `${i}\tcopied ${i}\n`;
  })());
  const into = client.query(copy.from('COPY smoke FROM STDIN'));
  await pipeline(lines, into);
  show('copied', into.rowCount);
  let bytes = 0;
  const count = new Writable({ write(chunk, _, done) { bytes += chunk.length; done(); } });
  await pipeline(client.query(copy.to('COPY smoke TO STDOUT')), count);
  show('out', bytes);
  await error('broken copy', () => pipeline(Readable.from(['1\tdouble\n']), client.query(copy.from('COPY smoke FROM STDIN'))));
  const cursor = client.query(new Cursor('SELECT id FROM smoke ORDER BY id'));
  const parts = [];
  for (let rows = await cursor.read(1500); rows.length; rows = await cursor.read(1500)) parts.push(rows.length);
  show('cursor', parts);
  const early = client.query(new Cursor('SELECT id FROM smoke ORDER BY id'));
  show('early', (await early.read(2)).length);
  await early.close();
  let sum = 0;
  for await (const row of client.query(new QueryStream('SELECT id FROM smoke', [], { batchSize: 100 }))) sum += row.id;
  show('stream', sum);
}

async function others(client) {
  const other = new Client(how());
  await other.connect();
  await other.query('LISTEN bell');
  const heard = once(other, 'notification');
  await client.query("SELECT pg_notify('bell', 'ding')");
  const [{ channel, payload }] = await heard;
  show('heard', { channel, payload });
  const notices = [];
  client.on('notice', (notice) => notices.push([notice.severity, notice.message]));
  await client.query("DO $$ BEGIN RAISE NOTICE 'one'; RAISE WARNING 'two'; END $$");
  show('notices', notices);
  const sleeping = error('cancelled', () => other.query('SELECT pg_sleep(30)'));
  await new Promise((done) => setTimeout(done, 300));
  await client.query('SELECT pg_cancel_backend($1)', [other.processID]);
  await sleeping;
  show('alive', (await other.query('SELECT 1 AS one')).rows);
  const ended = once(other, 'error');
  other.on('error', () => {}); // and once more when the connection closes
  await client.query('SELECT pg_terminate_backend($1)', [other.processID]);
  show('terminated', (await ended)[0].code);
  show('large', (await client.query('SELECT repeat($1, $2) AS large', ['x', 8 << 20])).rows[0].large.length);
}

async function main() {
  const settings = { application_name: 'node smoke', statement_timeout: 60000, lock_timeout: 5000, options: '-c geqo=off -c app.tenant=six' };
  const client = new Client({ ...how(), ...settings });
  await client.connect();
  show('settings', (await client.query("SELECT current_setting('application_name'), current_setting('geqo'), current_setting('app.tenant'), current_setting('lock_timeout')")).rows);
  await client.query('DROP TABLE IF EXISTS smoke');
  await queries(client);
  await streams(client);
  await others(client);
  await client.query('DROP TABLE smoke');
  await client.end();
  const pool = new Pool({ ...how(), max: 4 });
  const sums = await Promise.all([...Array(80).keys()].map((i) => pool.query('SELECT $1::int AS i', [i])));
  show('pool', sums.reduce((sum, r) => sum + r.rows[0].i, 0));
  await pool.end();
}

main().catch((raised) => { console.error(raised); process.exit(1); });
