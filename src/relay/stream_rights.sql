-- A summary of what stands where, and of who may see it and how: of what changes answers without changing rows. See
-- src/relay/stream_beat.rs.
SELECT concat_ws(':',
  (SELECT sum(hashtext(concat(oid, relnamespace, relname, relkind, relpersistence, relrowsecurity, relforcerowsecurity, relacl)))
   FROM pg_class WHERE oid >= 16384 AND relkind IN ('r', 'p', 'v', 'm', 'f') AND relpersistence <> 't'),
  (SELECT sum(hashtext(concat(a.attrelid, ':', a.attnum, ':', a.xmin))) FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
   WHERE a.attrelid >= 16384 AND a.attnum > 0 AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relpersistence <> 't'),
  (SELECT sum(hashtext(concat(inhparent, ':', inhrelid))) FROM pg_inherits WHERE inhparent >= 16384),
  (SELECT sum(hashtext(concat(xmin, ':', oid))) FROM pg_rewrite WHERE oid >= 16384),
  (SELECT sum(hashtext(concat(xmin, ':', oid))) FROM pg_policy),
  (SELECT sum(hashtext(concat(xmin, ':', oid))) FROM pg_proc WHERE oid >= 16384),
  (SELECT sum(hashtext(concat(oid, nspname, nspacl))) FROM pg_namespace WHERE nspname !~ '^pg_(toast_)?temp_'),
  (SELECT sum(hashtext(to_jsonb(m)::text)) FROM pg_auth_members m),
  (SELECT sum(hashtext(concat(oid, rolname, rolsuper, rolinherit, rolbypassrls))) FROM pg_roles),
  (SELECT sum(hashtext(concat(setdatabase, ':', setrole, setconfig))) FROM pg_db_role_setting),
  (SELECT hashtext(concat(oid, datname, datacl)) FROM pg_database WHERE datname = current_database()))
