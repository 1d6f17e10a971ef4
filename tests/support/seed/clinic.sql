-- A synthetic clinic. Every person is invented: names end in numbers, SSNs begin with 9 (never
-- issued), telephone numbers are 555-01xx, addresses do not exist. No random(): the rows are the
-- same each time.
SET client_min_messages = warning;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO clinic_owner;
SET ROLE clinic_owner;

CREATE TABLE patients (
    id integer PRIMARY KEY,
    mrn text NOT NULL UNIQUE,
    name text NOT NULL,
    ssn text NOT NULL UNIQUE,
    birth_date date NOT NULL,
    sex text NOT NULL,
    phone text,
    email text,
    address text,
    zip text,
    care_unit text NOT NULL
);
CREATE TABLE staff (
    id integer PRIMARY KEY,
    name text NOT NULL,
    role text NOT NULL,
    department text NOT NULL,
    pager text
);
CREATE TABLE rooms (
    id integer PRIMARY KEY,
    name text NOT NULL,
    ward text NOT NULL,
    beds integer NOT NULL
);
CREATE TABLE encounters (
    id integer PRIMARY KEY,
    patient_id integer NOT NULL REFERENCES patients,
    staff_id integer NOT NULL REFERENCES staff,
    room_id integer NOT NULL REFERENCES rooms,
    admitted_at timestamptz NOT NULL,
    discharged_at timestamptz,
    kind text NOT NULL
);
CREATE TABLE diagnoses (
    id integer PRIMARY KEY,
    encounter_id integer NOT NULL REFERENCES encounters,
    patient_id integer NOT NULL REFERENCES patients,
    icd10 text NOT NULL,
    description text NOT NULL
);
CREATE TABLE medications (
    id integer PRIMARY KEY,
    patient_id integer NOT NULL REFERENCES patients,
    drug text NOT NULL,
    dose text NOT NULL,
    started_on date NOT NULL
);
CREATE TABLE notes (
    id integer PRIMARY KEY,
    encounter_id integer NOT NULL REFERENCES encounters,
    patient_id integer NOT NULL REFERENCES patients,
    author_id integer NOT NULL REFERENCES staff,
    body text NOT NULL
);
CREATE TABLE claims (
    id integer PRIMARY KEY,
    patient_id integer NOT NULL REFERENCES patients,
    member_no text NOT NULL,
    amount numeric(10, 2) NOT NULL,
    status text NOT NULL,
    submitted_on date NOT NULL
);
-- What an administrator would drop some day.
CREATE TABLE import_2019 (id integer, line text);
CREATE TABLE import_2020 (id integer, line text);
CREATE TABLE import_2021 (id integer, line text);

CREATE VIEW patient_contacts AS
    SELECT id AS patient, name AS who, phone AS how, care_unit FROM patients;
CREATE VIEW ward_load AS
    SELECT r.ward, count(*) AS stays, sum(r.beds) AS beds
    FROM encounters e JOIN rooms r ON r.id = e.room_id GROUP BY r.ward;

-- Labels: `@label(KIND)` says what a column holds, `@label(clear)` that it is no PHI by itself.
COMMENT ON COLUMN patients.id IS 'Internal number, never printed for anyone outside. @label(clear)';
COMMENT ON COLUMN patients.mrn IS 'Medical record number. @label(mrn)';
COMMENT ON COLUMN patients.name IS 'Full name. @label(name)';
COMMENT ON COLUMN patients.ssn IS 'Social security number. @label(ssn)';
COMMENT ON COLUMN patients.birth_date IS '@label(date)';
COMMENT ON COLUMN patients.sex IS '@label(clear)';
COMMENT ON COLUMN patients.phone IS '@label(phone)';
COMMENT ON COLUMN patients.email IS '@label(email)';
COMMENT ON COLUMN patients.address IS '@label(address)';
COMMENT ON COLUMN patients.zip IS '@label(zip)';
COMMENT ON COLUMN patients.care_unit IS 'Which unit looks after the patient. @label(clear)';
COMMENT ON COLUMN staff.id IS '@label(clear)';
COMMENT ON COLUMN staff.name IS 'Staff are no patients. @label(clear)';
COMMENT ON COLUMN staff.role IS '@label(clear)';
COMMENT ON COLUMN staff.department IS '@label(clear)';
COMMENT ON COLUMN staff.pager IS '@label(clear)';
COMMENT ON COLUMN rooms.id IS '@label(clear)';
COMMENT ON COLUMN rooms.name IS '@label(clear)';
COMMENT ON COLUMN rooms.ward IS '@label(clear)';
COMMENT ON COLUMN rooms.beds IS '@label(clear)';
COMMENT ON COLUMN encounters.id IS '@label(clear)';
COMMENT ON COLUMN encounters.patient_id IS '@label(clear)';
COMMENT ON COLUMN encounters.staff_id IS '@label(clear)';
COMMENT ON COLUMN encounters.room_id IS '@label(clear)';
COMMENT ON COLUMN encounters.admitted_at IS '@label(date)';
COMMENT ON COLUMN encounters.discharged_at IS '@label(date)';
COMMENT ON COLUMN encounters.kind IS '@label(clear)';
COMMENT ON COLUMN diagnoses.id IS '@label(clear)';
COMMENT ON COLUMN diagnoses.encounter_id IS '@label(clear)';
COMMENT ON COLUMN diagnoses.patient_id IS '@label(clear)';
COMMENT ON COLUMN diagnoses.icd10 IS 'Clinical; names nobody. @label(clear)';
COMMENT ON COLUMN diagnoses.description IS '@label(clear)';
COMMENT ON COLUMN medications.id IS '@label(clear)';
COMMENT ON COLUMN medications.patient_id IS '@label(clear)';
COMMENT ON COLUMN medications.drug IS '@label(clear)';
COMMENT ON COLUMN medications.dose IS '@label(clear)';
COMMENT ON COLUMN medications.started_on IS '@label(date)';
COMMENT ON COLUMN notes.id IS '@label(clear)';
COMMENT ON COLUMN notes.encounter_id IS '@label(clear)';
COMMENT ON COLUMN notes.patient_id IS '@label(clear)';
COMMENT ON COLUMN notes.author_id IS '@label(clear)';
COMMENT ON COLUMN notes.body IS 'What a clinician typed; names and numbers occur in it. @label(free-text)';
COMMENT ON COLUMN claims.id IS '@label(clear)';
COMMENT ON COLUMN claims.patient_id IS '@label(clear)';
COMMENT ON COLUMN claims.member_no IS '@label(member-number)';
COMMENT ON COLUMN claims.amount IS '@label(clear)';
COMMENT ON COLUMN claims.status IS '@label(clear)';
COMMENT ON COLUMN claims.submitted_on IS '@label(date)';
COMMENT ON COLUMN import_2019.id IS '@label(clear)';
COMMENT ON COLUMN import_2019.line IS '@label(clear)';
COMMENT ON COLUMN import_2020.id IS '@label(clear)';
COMMENT ON COLUMN import_2020.line IS '@label(clear)';
COMMENT ON COLUMN import_2021.id IS '@label(clear)';
COMMENT ON COLUMN import_2021.line IS '@label(clear)';

GRANT SELECT ON patients, staff, rooms, encounters, diagnoses, medications, notes, claims,
    patient_contacts, ward_load TO agent_ro, clinician;
GRANT INSERT, UPDATE ON notes, encounters, diagnoses, medications TO clinician;
GRANT SELECT ON patients, claims, staff TO billing;
GRANT UPDATE ON claims TO billing;

-- rows
CREATE FUNCTION pg_temp.h(what text, i integer, span integer) RETURNS integer
    LANGUAGE sql IMMUTABLE AS
    $$ SELECT (('x' || substr(md5(what || i), 1, 7))::bit(28)::integer) % span $$;

INSERT INTO staff
SELECT i,
       (ARRAY['Ada','Bo','Cleo','Dov','Eli','Fay','Gus','Hal'])[1 + pg_temp.h('sf', i, 8)]
           || ' Staffson-' || lpad(i::text, 3, '0'),
       (ARRAY['nurse','physician','billing','admin'])[1 + i % 4],
       (ARRAY['cardiology','oncology','surgery','emergency'])[1 + pg_temp.h('sd', i, 4)],
       'x' || 100 + i
FROM generate_series(1, 60) AS i;

INSERT INTO rooms
SELECT i, 'R-' || lpad(i::text, 2, '0'), (ARRAY['East','West','ICU'])[1 + i % 3], 1 + i % 4
FROM generate_series(1, 40) AS i;

INSERT INTO patients
SELECT i,
       'MRN-' || lpad(i::text, 6, '0'),
       (ARRAY['Alder','Birch','Cedar','Dogwood','Elm','Fir','Ginkgo','Hazel','Ivy','Juniper'])
           [1 + pg_temp.h('pf', i, 10)]
           || ' ' ||
       (ARRAY['Testwell','Mockford','Samplesen','Fakenham','Dummond','Specimen'])
           [1 + pg_temp.h('pl', i, 6)]
           || '-' || lpad(i::text, 5, '0'),
       '9' || lpad((i / 1000 % 100)::text, 2, '0') || '-' || lpad((10 + pg_temp.h('ps', i, 80))::text, 2, '0')
           || '-' || lpad((i % 10000)::text, 4, '0'),
       date '1930-01-01' + pg_temp.h('pb', i, 29000),
       (ARRAY['f','m','x'])[1 + pg_temp.h('px', i, 20) / 9],
       '+1-202-555-01' || lpad(pg_temp.h('pp', i, 100)::text, 2, '0'),
       'patient' || i || '@clinic.invalid',
       1 + pg_temp.h('pa', i, 900) || ' Nowhere Street, Apt ' || i,
       '000' || lpad(pg_temp.h('pz', i, 100)::text, 2, '0'),
       (ARRAY['cardiology','oncology','surgery','emergency'])[1 + pg_temp.h('pu', i, 4)]
FROM generate_series(1, 12000) AS i;

INSERT INTO encounters
SELECT i, p, 1 + pg_temp.h('es', i, 60), 1 + pg_temp.h('er', i, 40), t,
       CASE WHEN i % 50 <> 0 THEN t + make_interval(hours => 1 + pg_temp.h('el', i, 200)) END,
       (ARRAY['inpatient','outpatient','emergency'])[1 + pg_temp.h('ek', i, 3)]
FROM generate_series(1, 18000) AS i,
     LATERAL (SELECT 1 + (i - 1) % 12000 AS p,
                     timestamptz '2024-01-01 00:00+00'
                         + make_interval(mins => pg_temp.h('et', i, 1000000)) AS t) AS x;

INSERT INTO diagnoses
SELECT e.id, e.id, e.patient_id, d.code, d.text
FROM encounters e
JOIN (VALUES (0, 'E11.9', 'Type 2 diabetes'), (1, 'I10', 'Hypertension'), (2, 'J45.909', 'Asthma'),
             (3, 'I20.9', 'Angina'), (4, 'S72.001A', 'Femur fracture'), (5, 'F32.1', 'Depression'))
    AS d (n, code, text) ON d.n = pg_temp.h('di', e.id, 6);

INSERT INTO medications
SELECT i, 1 + (i - 1) % 12000,
       (ARRAY['metformin','lisinopril','albuterol','nitroglycerin','ibuprofen','sertraline'])
           [1 + pg_temp.h('me', i, 6)],
       5 * (1 + pg_temp.h('md', i, 40)) || ' mg',
       date '2023-01-01' + pg_temp.h('ms', i, 900)
FROM generate_series(1, 15000) AS i;

INSERT INTO notes
SELECT e.id, e.id, e.patient_id, e.staff_id,
       CASE pg_temp.h('nk', e.id, 3)
           WHEN 0 THEN 'Pt ' || p.name || ' (' || p.mrn || ') seen in ' || r.name || ', reports mild pain. Call '
               || p.phone || ' with results.'
           WHEN 1 THEN p.name || ', born ' || p.birth_date || ', lives at ' || p.address
               || '. Discharged home in stable condition.'
           ELSE 'Follow-up. SSN on file ' || p.ssn || ', mail to ' || p.email || '. Blood pressure 130/85.'
       END
FROM encounters e JOIN patients p ON p.id = e.patient_id JOIN rooms r ON r.id = e.room_id;

INSERT INTO claims
SELECT i, 1 + (i - 1) % 12000, 'MBR-' || lpad((700000 + i)::text, 7, '0'),
       20 + pg_temp.h('ca', i, 400000) / 100.0,
       (ARRAY['open','paid','denied'])[1 + pg_temp.h('cs', i, 3)],
       date '2024-01-01' + pg_temp.h('cd', i, 600)
FROM generate_series(1, 14000) AS i;

INSERT INTO import_2019 SELECT i, 'line ' || i FROM generate_series(1, 100) AS i;
INSERT INTO import_2020 SELECT i, 'line ' || i FROM generate_series(1, 100) AS i;
INSERT INTO import_2021 SELECT i, 'line ' || i FROM generate_series(1, 100) AS i;
RESET ROLE;
ANALYZE;
