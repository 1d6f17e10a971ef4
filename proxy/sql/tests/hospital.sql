-- The tests' own hospital: everything in it is invented.
CREATE TABLE patients (
  id int PRIMARY KEY,
  mrn text NOT NULL UNIQUE,
  name text NOT NULL,
  ssn text NOT NULL UNIQUE,
  dob date NOT NULL,
  phone text,
  email text,
  address text,
  zip text,
  name_search text GENERATED ALWAYS AS (lower(name)) STORED
);
CREATE TABLE staff (id int PRIMARY KEY, name text NOT NULL, role text NOT NULL, phone text, note text);
CREATE TABLE encounters (
  id int PRIMARY KEY,
  patient_id int NOT NULL REFERENCES patients(id),
  staff_id int REFERENCES staff(id),
  admitted_at timestamptz NOT NULL,
  discharged_at timestamptz,
  ward text
) PARTITION BY RANGE (id);
CREATE TABLE encounters_p1 PARTITION OF encounters FOR VALUES FROM (0) TO (1000);
CREATE TABLE diagnoses (id int PRIMARY KEY, patient_id int NOT NULL REFERENCES patients(id), icd10 text NOT NULL, label text);
CREATE TABLE notes (id int PRIMARY KEY, patient_id int NOT NULL, author_id int, body text NOT NULL);
CREATE TABLE claims (id int PRIMARY KEY, patient_mrn text NOT NULL REFERENCES patients(mrn), member_no text NOT NULL, amount numeric(10,2) NOT NULL, status text NOT NULL);
CREATE TABLE claims_archive () INHERITS (claims);
CREATE TABLE intake (id int PRIMARY KEY, doc jsonb NOT NULL, tags text[]);
CREATE TABLE patients_bak (id int, c1 text, c2 text);
CREATE TABLE scratch (id int, t text, n bigint);

COMMENT ON COLUMN patients.id IS '@label(clear)';
COMMENT ON COLUMN patients.mrn IS 'record number @label(mrn)';
COMMENT ON COLUMN patients.name IS '@label(name)';
COMMENT ON COLUMN patients.ssn IS '@label(ssn)';
COMMENT ON COLUMN patients.dob IS '@label(date)';
COMMENT ON COLUMN patients.phone IS '@label(phone)';
COMMENT ON COLUMN patients.email IS '@label(email)';
COMMENT ON COLUMN patients.zip IS '@label(zip)';
COMMENT ON TABLE staff IS 'nothing personal of patients @label(clear)';
COMMENT ON TABLE encounters IS '@label(clear)';
COMMENT ON COLUMN encounters.admitted_at IS '@label(date)';
COMMENT ON COLUMN encounters.discharged_at IS '@label(date)';
COMMENT ON TABLE diagnoses IS '@label(clear)';
COMMENT ON TABLE notes IS '@label(clear)';
COMMENT ON COLUMN notes.body IS '@label(free-text)';
COMMENT ON TABLE claims IS '@label(clear)';
COMMENT ON COLUMN claims.patient_mrn IS '@label(mrn)';
COMMENT ON COLUMN claims.member_no IS '@label(member)';
COMMENT ON TABLE intake IS '@label(clear)';
COMMENT ON COLUMN intake.doc IS '@label(document)';
COMMENT ON COLUMN intake.tags IS '@label(document)';
COMMENT ON TABLE scratch IS '@label(clear)';

CREATE VIEW v_contact AS SELECT id, name AS label, phone AS contact FROM patients;
CREATE VIEW v_nested AS SELECT id AS k, label AS x FROM v_contact;
CREATE VIEW v_roster AS SELECT id, name, role FROM staff;
CREATE VIEW v_ssn_ok AS SELECT id, ssn FROM patients WHERE ssn LIKE '9%';
CREATE MATERIALIZED VIEW mv_directory AS SELECT id, name || ' / ' || phone AS entry FROM patients;
CREATE FUNCTION pname(int) RETURNS text LANGUAGE sql STABLE AS 'SELECT name FROM patients WHERE id = $1';
CREATE FUNCTION find_people() RETURNS TABLE(a text, b text) LANGUAGE sql STABLE AS 'SELECT mrn, ssn FROM patients';
CREATE FUNCTION rec_people() RETURNS SETOF record LANGUAGE sql STABLE AS 'SELECT id, ssn FROM patients';
CREATE TYPE contact_t AS (who text, how text);
CREATE FUNCTION contact_of(int) RETURNS contact_t LANGUAGE sql STABLE AS 'SELECT ROW(name, phone)::contact_t FROM patients WHERE id=$1';
CREATE FUNCTION ptag(patients) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT $1.ssn';
CREATE FUNCTION staff_count() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) FROM staff';
CREATE PROCEDURE p_get(INOUT x text) LANGUAGE plpgsql AS $p$ BEGIN SELECT ssn INTO x FROM patients; END $p$;
CREATE SEQUENCE misc_seq;
CREATE TYPE hstore;
CREATE FUNCTION hstore(text, text) RETURNS hstore LANGUAGE c IMMUTABLE AS 'x', 'y';
CREATE FUNCTION hstore(record) RETURNS hstore LANGUAGE c IMMUTABLE AS 'x', 'y';
CREATE FUNCTION avals(hstore) RETURNS text[] LANGUAGE c IMMUTABLE AS 'x', 'y';
CREATE OPERATOR -> (LEFTARG = hstore, RIGHTARG = text, FUNCTION = fetchval);
CREATE OPERATOR = (LEFTARG = hstore, RIGHTARG = hstore, FUNCTION = hstore_eq);
CREATE FUNCTION similarity(text, text) RETURNS real LANGUAGE c IMMUTABLE AS 'x', 'y';
CREATE OPERATOR % (LEFTARG = text, RIGHTARG = text, FUNCTION = similarity_op);
