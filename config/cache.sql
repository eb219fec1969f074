-- What [cache] invalidation = "logical" needs in a database: the publication `pgweir`, and event triggers by which changes of the schema
-- that are made past pgweir are known at once. To be run as superuser, in each database, and again when tables were made:
--   psql -d shop -f cache.sql
-- Everything here is taken away by: DROP SCHEMA pgweir CASCADE; DROP PUBLICATION pgweir;
-- The server needs wal_level = logical, and the role that pgweir follows the changes as needs REPLICATION.

CREATE SCHEMA IF NOT EXISTS pgweir;
GRANT USAGE ON SCHEMA pgweir TO PUBLIC;

-- The publication has every permanent table whose rows can be told apart, by a primary key or otherwise: in a publication UPDATE and DELETE
-- fail on others. A partitioned table brings its partitions with it, also those made later; what inherits from another table is there by
-- itself, if it can be (foreign and unlogged tables cannot).
DO $$
DECLARE
  tables text;
BEGIN
  SELECT string_agg(concat(CASE WHEN c.relkind = 'r' THEN 'ONLY ' END, format('%I.%I', n.nspname, c.relname)), ', ' ORDER BY n.nspname, c.relname) INTO tables
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relpersistence = 'p' AND c.relkind IN ('r', 'p') AND c.oid >= 16384
    AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    AND (c.relreplident IN ('f', 'i') OR (c.relreplident = 'd'
      AND EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisprimary AND i.indisvalid)));
  IF EXISTS (SELECT FROM pg_catalog.pg_publication WHERE pubname = 'pgweir') THEN
    EXECUTE concat('ALTER PUBLICATION pgweir SET TABLE ', tables);
  ELSE
    EXECUTE concat('CREATE PUBLICATION pgweir', ' FOR TABLE ' || tables);
  END IF;
END
$$;

-- Says in the write-ahead log, as part of the transaction, that the schema has changed; but not for temporary things.
CREATE OR REPLACE FUNCTION pgweir.schema_changes() RETURNS event_trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF TG_EVENT = 'sql_drop' THEN
    IF NOT EXISTS (SELECT FROM pg_event_trigger_dropped_objects() WHERE NOT is_temporary) THEN
      RETURN;
    END IF;
  ELSIF TG_TAG LIKE 'DROP %' OR (EXISTS (SELECT FROM pg_event_trigger_ddl_commands())
    AND NOT EXISTS (SELECT FROM pg_event_trigger_ddl_commands() WHERE schema_name IS DISTINCT FROM 'pg_temp')) THEN
    -- Of what is dropped the other trigger tells.
    RETURN;
  END IF;
  IF TG_TAG NOT IN ('COMMENT', 'REFRESH MATERIALIZED VIEW') THEN
    PERFORM pg_logical_emit_message(true, 'pgweir_ddl', TG_TAG);
  END IF;
END
$$;

DROP EVENT TRIGGER IF EXISTS pgweir_ddl;
CREATE EVENT TRIGGER pgweir_ddl ON ddl_command_end EXECUTE FUNCTION pgweir.schema_changes();
DROP EVENT TRIGGER IF EXISTS pgweir_drop;
CREATE EVENT TRIGGER pgweir_drop ON sql_drop EXECUTE FUNCTION pgweir.schema_changes();
