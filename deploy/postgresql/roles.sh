#!/bin/sh
# Makes the two plain roles: one owns the tables, the other, which workers and producers use, reads and writes rows.
# The image of PostgreSQL runs it once, when its volume is empty.
set -eu
psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" \
    --set owner_password="$(cat /run/secrets/owner)" \
    --set database_password="$(cat /run/secrets/database)" <<'SQL'
CREATE ROLE ecgbatch_owner LOGIN PASSWORD :'owner_password';
CREATE ROLE ecgbatch LOGIN PASSWORD :'database_password';
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO ecgbatch_owner;
GRANT USAGE ON SCHEMA public TO ecgbatch;
ALTER DEFAULT PRIVILEGES FOR ROLE ecgbatch_owner IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO ecgbatch;
ALTER DEFAULT PRIVILEGES FOR ROLE ecgbatch_owner IN SCHEMA public GRANT USAGE ON SEQUENCES TO ecgbatch;
SQL
