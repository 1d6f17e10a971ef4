-- Backend roles. Chaperone logs in as one of them for each session.
CREATE ROLE clinic_owner;
CREATE ROLE agent_ro LOGIN;
CREATE ROLE clinician LOGIN;
CREATE ROLE billing LOGIN;
-- Owns the schema and may change roles: what risky commands need.
CREATE ROLE dba LOGIN CREATEROLE IN ROLE clinic_owner;
CREATE DATABASE clinic OWNER clinic_owner;
