ARRAY[
  (SELECT sum(hashtext(concat(xmin, ':', oid))) FROM pg_proc WHERE oid >= 16384),
  (SELECT sum(hashtext(concat(xmin, ':', oid))) FROM pg_trigger WHERE oid >= 16384 AND NOT tgisinternal),
  (SELECT sum(hashtext(concat(xmin, ':', oid))) FROM pg_rewrite WHERE oid >= 16384),
  (SELECT sum(hashtext(concat(xmin, ':', oid))) FROM pg_attrdef WHERE oid >= 16384),
  (SELECT sum(hashtext(concat(xmin, ':', oid))) FROM pg_policy WHERE oid >= 16384),
  (SELECT sum(hashtext(concat(xmin, ':', oid))) FROM pg_constraint WHERE oid >= 16384),
  (SELECT sum(hashtext(concat(xmin, ':', oid))) FROM pg_operator WHERE oid >= 16384),
  (SELECT sum(hashtext(concat(xmin, ':', oid))) FROM pg_amop WHERE oid >= 16384),
  (SELECT sum(hashtext(concat(xmin, ':', oid))) FROM pg_amproc WHERE oid >= 16384),
  (SELECT sum(hashtext(indexrelid::text)) FROM pg_index
   WHERE indexrelid >= 16384 AND (indexprs IS NOT NULL OR indpred IS NOT NULL)),
  (SELECT sum(hashtext(concat(rngtypid, ':', rngsubdiff))) FROM pg_range WHERE rngtypid >= 16384),
  (SELECT sum(hashtext(concat(xmin, ':', oid))) FROM pg_cast WHERE oid >= 16384),
  (SELECT sum(hashtext(concat(xmin, ':', oid))) FROM pg_event_trigger WHERE oid >= 16384),
  (SELECT sum(hashtext(concat(xmin, ':', oid))) FROM pg_extension WHERE oid >= 16384),
  (SELECT sum(hashtext(concat(inhparent, ':', inhrelid))) FROM pg_inherits WHERE inhparent >= 16384),
  (SELECT sum(hashtext(concat(nspname, ':', oid))) FROM pg_namespace WHERE nspname !~ '^pg_'),
  (SELECT sum(hashtext(concat(relname, ':', oid, relnamespace, relkind, relpersistence, relrowsecurity))) FROM pg_class
   WHERE oid >= 16384 AND relkind NOT IN ('i', 'I', 't') AND relpersistence <> 't')]::text
