-- What the meaning of a text hangs on beside its settings, and whose it is: see src/relay/remote.rs. Two servers, or one at two times, that answer
-- the same here understand every text alike. What a catalog says is hashed where that can be the same again after a change and back; where it is too much to read,
-- the transaction that wrote it last. Temporary things are nobody else's.
SELECT 'schema', concat_ws('/',
  (SELECT system_identifier FROM pg_control_system()),
  CASE WHEN NOT pg_is_in_recovery() THEN substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) END,
  current_setting('server_version_num'), current_database(),
  (SELECT sum(hashtextextended(concat(oid, ':', relname, ':', relnamespace, ':', reloftype, ':', relowner, ':', relkind, ':', relpersistence, ':',
    relrowsecurity, relforcerowsecurity, relispartition, ':', reloptions, ':', relacl), 0))
    FROM pg_class WHERE oid >= 16384 AND relkind NOT IN ('i', 'I', 't') AND relpersistence <> 't'),
  (SELECT sum(hashtextextended(concat(attrelid, ':', attnum, ':', attname, ':', atttypid, ':', atttypmod, ':', attcollation, ':',
    attisdropped, ':', attacl), 1))
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
    WHERE c.oid >= 16384 AND relkind NOT IN ('i', 'I', 't') AND relpersistence <> 't' AND attnum > 0),
  (SELECT sum(hashtextextended(concat(oid, ':', nspname, ':', nspowner, ':', nspacl), 2))
    FROM pg_namespace WHERE nspname !~ '^pg_(temp|toast)'),
  (SELECT sum(hashtextextended(concat(t.oid, ':', t.xmin), 3)) FROM pg_type t
    WHERE t.oid >= 16384 AND typtype <> 'c' AND typcategory <> 'A'),
  (SELECT sum(hashtextextended(concat(inhparent, ':', inhrelid), 4)) FROM pg_inherits WHERE inhparent >= 16384),
  (SELECT sum(hashtextextended(concat(oid, ':', xmin), 5)) FROM pg_proc WHERE oid >= 16384),
  (SELECT sum(hashtextextended(concat(oid, ':', xmin), 6)) FROM pg_rewrite WHERE oid >= 16384),
  (SELECT sum(hashtextextended(concat(oid, ':', xmin), 7)) FROM pg_policy WHERE oid >= 16384),
  (SELECT sum(hashtextextended(concat(oid, ':', xmin), 8)) FROM pg_operator WHERE oid >= 16384),
  (SELECT sum(hashtextextended(concat(oid, ':', xmin), 9)) FROM pg_cast WHERE oid >= 16384),
  (SELECT sum(hashtextextended(concat(oid, ':', xmin), 10)) FROM pg_enum),
  (SELECT sum(hashtextextended(concat(oid, ':', xmin), 11)) FROM pg_collation WHERE oid >= 16384),
  (SELECT sum(hashtextextended(concat(oid, ':', xmin), 12)) FROM pg_extension),
  (SELECT sum(hashtextextended(concat(oid, ':', xmin), 13)) FROM pg_ts_config),
  (SELECT sum(hashtextextended(concat(oid, ':', xmin), 14)) FROM pg_ts_dict),
  (SELECT sum(hashtextextended(concat(mapcfg, ':', maptokentype, ':', mapseqno, ':', mapdict), 15)) FROM pg_ts_config_map),
  (SELECT sum(hashtextextended(concat(oid, ':', rolname, ':', rolsuper, rolinherit, rolbypassrls), 16)) FROM pg_roles),
  (SELECT sum(hashtextextended(m::text, 17)) FROM pg_auth_members m),
  (SELECT sum(hashtextextended(s::text, 18)) FROM pg_db_role_setting s))
