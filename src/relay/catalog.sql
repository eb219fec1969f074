-- What code a database has and what runs it: see src/relay/catalog.rs and src/sql/code.rs. One row per fact; the
-- first column says of what kind. Built-in objects have numbers below 16384 (FirstNormalObjectId, access/transam.h).
-- Nothing here takes a lock on what it reads about, so nothing waits for anybody's ALTER TABLE.
WITH watched AS MATERIALIZED (
  SELECT oid, proname, prosrc FROM pg_proc
  WHERE oid < 16384 AND proname IN ('set_config', 'nextval', 'currval', 'lastval', 'setval', 'setseed',
    'pg_advisory_lock', 'pg_advisory_lock_shared', 'pg_try_advisory_lock', 'pg_try_advisory_lock_shared',
    'pg_advisory_unlock', 'pg_advisory_unlock_shared', 'pg_advisory_unlock_all', 'pg_notify',
    'pg_listening_channels', 'query_to_xml', 'query_to_xmlschema', 'query_to_xml_and_xmlschema', 'table_to_xml',
    'table_to_xml_and_xmlschema', 'schema_to_xml', 'schema_to_xml_and_xmlschema', 'database_to_xml',
    'database_to_xml_and_xmlschema', 'ts_stat', 'ts_rewrite', 'brin_summarize_new_values', 'brin_summarize_range',
    'pg_replication_origin_session_setup', 'pg_backup_start', 'pg_start_backup',
    'pg_create_physical_replication_slot', 'pg_create_logical_replication_slot',
    'pg_copy_physical_replication_slot', 'pg_copy_logical_replication_slot')
), settings(oid) AS (
  SELECT 'pg_catalog.pg_settings'::regclass::oid
), bodies AS MATERIALIZED (
  SELECT p.oid, p.pronamespace, p.proname, p.prokind, p.provolatile, l.lanname,
    CASE WHEN l.lanname NOT IN ('c', 'internal') THEN p.prosrc ELSE '' END AS prosrc,
    -- The column is there from PostgreSQL 14 on.
    CASE WHEN l.lanname = 'sql' AND p.prosrc = '' THEN to_jsonb(p) ->> 'prosqlbody' END AS tree,
    coalesce((SELECT t.typtype IN ('c', 'd', 'p') FROM pg_type t WHERE t.oid = p.proargtypes[0]), false) AS attribute,
    CASE WHEN l.lanname IN ('c', 'internal') THEN (SELECT e.extname FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
      WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.refclassid = 'pg_extension'::regclass
        AND d.deptype = 'e' LIMIT 1) END AS extension
  FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang WHERE p.oid >= 16384
), rules AS (
  -- Who reads a materialized view runs nothing of what fills it.
  SELECT w.oid, ev_class, ev_type, ev_action, ev_qual, ev_type = '1' AND c.relkind <> 'm' AS reads,
    CASE WHEN ev_type = '1' AND c.relkind <> 'm' THEN 'r' ELSE 'w' END AS side
  FROM pg_rewrite w JOIN pg_class c ON c.oid = w.ev_class WHERE w.oid >= 16384
), size AS (
  SELECT coalesce(sum(octet_length(prosrc)), 0) AS bytes FROM bodies
), trees(k, tree) AS (
  SELECT concat('p', oid), tree FROM bodies WHERE tree IS NOT NULL
  UNION ALL
  SELECT concat(side, ev_class), concat(ev_action::text, ev_qual::text) FROM rules
  UNION ALL SELECT concat('p', oid), proargdefaults::text FROM pg_proc WHERE oid >= 16384 AND proargdefaults IS NOT NULL
  UNION ALL SELECT concat('w', adrelid), adbin::text FROM pg_attrdef WHERE oid >= 16384
  UNION ALL SELECT concat('r', polrelid), concat(polqual::text, polwithcheck::text) FROM pg_policy WHERE oid >= 16384
  UNION ALL SELECT CASE WHEN conrelid <> 0 THEN concat('w', conrelid) ELSE 'k' END, conbin::text
  FROM pg_constraint WHERE contype = 'c' AND oid >= 16384
  UNION ALL SELECT concat('w', tgrelid), tgqual::text FROM pg_trigger WHERE tgqual IS NOT NULL AND oid >= 16384
), called(k, field, oid) AS MATERIALIZED (
  SELECT DISTINCT k, found[1], found[2]::oid
  FROM trees, regexp_matches(tree, ':(funcid|opfuncid|aggfnoid|winfnoid|relid) ([0-9]+) ', 'g') AS m(found)
), builtin(f, name) AS (
  SELECT DISTINCT k, proname FROM called JOIN watched USING (oid) WHERE field <> 'relid'
  UNION ALL
  SELECT DISTINCT concat('p', a.aggfnoid::oid), w.proname FROM pg_aggregate a JOIN watched w
    ON w.oid IN (aggtransfn, aggfinalfn, aggcombinefn, aggserialfn, aggdeserialfn, aggmtransfn, aggminvtransfn, aggmfinalfn)
  WHERE a.aggfnoid::oid >= 16384
  UNION ALL
  SELECT concat('o', o.oid), w.proname FROM pg_operator o JOIN watched w ON w.oid = o.oprcode WHERE o.oid >= 16384
  UNION ALL SELECT 'a', w.proname FROM pg_cast c JOIN watched w ON w.oid = c.castfunc
  UNION ALL SELECT 'a', w.proname FROM pg_amproc m JOIN watched w ON w.oid = m.amproc
  UNION ALL
  -- Another name for a built-in one.
  SELECT DISTINCT concat('p', p.oid), w.proname FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
  JOIN watched w ON w.prosrc = p.prosrc WHERE p.oid >= 16384 AND l.lanname = 'internal'
  UNION ALL
  SELECT concat('w', s.oid), 'pg_settings' FROM settings s WHERE EXISTS (SELECT FROM pg_depend d
    WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = s.oid AND d.objid >= 16384)
  UNION ALL
  -- Identity columns.
  SELECT concat('w', d.refobjid), 'nextval' FROM pg_sequence s JOIN pg_depend d ON d.objid = s.seqrelid
  WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.deptype = 'i'
), owners(class, object, k, reads) AS (
  SELECT 'pg_rewrite'::regclass, oid, concat(side, ev_class), reads FROM rules
  UNION ALL SELECT 'pg_attrdef'::regclass, oid, concat('w', adrelid), NULL FROM pg_attrdef WHERE oid >= 16384
  UNION ALL SELECT 'pg_policy'::regclass, oid, concat('r', polrelid), true FROM pg_policy WHERE oid >= 16384
  UNION ALL
  SELECT 'pg_constraint'::regclass, oid, CASE WHEN conrelid <> 0 THEN concat('w', conrelid) ELSE 'k' END,
    NULL FROM pg_constraint WHERE contype = 'c' AND oid >= 16384
  UNION ALL
  SELECT 'pg_trigger'::regclass, oid, concat('w', tgrelid), NULL FROM pg_trigger WHERE tgqual IS NOT NULL AND oid >= 16384
  UNION ALL
  -- Constants in these are computed by who reads, too.
  SELECT 'pg_class'::regclass, indexrelid, concat('r', indrelid), NULL FROM pg_index
  WHERE (indexprs IS NOT NULL OR indpred IS NOT NULL) AND indexrelid >= 16384
  UNION ALL
  SELECT 'pg_class'::regclass, partrelid, concat('r', partrelid), NULL FROM pg_partitioned_table WHERE partexprs IS NOT NULL
  UNION ALL SELECT 'pg_proc'::regclass, oid, concat('p', oid), false FROM bodies
), edges(f, t) AS (
  SELECT DISTINCT o.k, concat(CASE d.refclassid WHEN 'pg_proc'::regclass THEN 'p' WHEN 'pg_operator'::regclass THEN 'o'
    ELSE CASE WHEN o.reads THEN 'r' ELSE 'w' END END, d.refobjid)
  FROM owners o JOIN pg_depend d ON d.classid = o.class AND d.objid = o.object
  WHERE (d.refobjid >= 16384 OR d.refobjid IN (SELECT oid FROM settings))
    AND (d.refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass)
      OR (d.refclassid = 'pg_class'::regclass AND o.reads IS NOT NULL))
  UNION ALL
  -- Whoever plans a read computes what is immutable in checks and extended statistics (get_relation_constraints and
  -- get_relation_statistics in src/backend/optimizer/util/plancat.c).
  SELECT DISTINCT concat('r', x.relation), concat(CASE WHEN o.oid IS NULL THEN 'p' ELSE 'o' END, d.refobjid) FROM (
    SELECT 'pg_constraint'::regclass AS class, oid, conrelid AS relation FROM pg_constraint WHERE contype = 'c' AND conrelid <> 0 AND oid >= 16384
    UNION ALL SELECT 'pg_statistic_ext'::regclass, oid, stxrelid FROM pg_statistic_ext WHERE oid >= 16384
  ) x JOIN pg_depend d ON d.classid = x.class AND d.objid = x.oid AND d.refobjid >= 16384
    AND d.refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass)
  LEFT JOIN pg_operator o ON d.refclassid = 'pg_operator'::regclass AND o.oid = d.refobjid
  JOIN pg_proc p ON p.oid = coalesce(o.oprcode::oid, d.refobjid) AND p.provolatile = 'i'
  UNION ALL
  -- A view that is written to writes to its tables.
  SELECT DISTINCT concat('w', r.ev_class), concat('w', d.refobjid) FROM pg_rewrite r
  JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
  WHERE r.oid >= 16384 AND r.ev_type = '1' AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> r.ev_class
  UNION ALL
  SELECT DISTINCT concat('w', tgrelid), concat('p', tgfoid) FROM pg_trigger
  WHERE oid >= 16384 AND tgfoid >= 16384 AND tgenabled <> 'D'
  UNION ALL
  -- ON DELETE CASCADE and the like.
  SELECT concat('w', confrelid), concat('w', conrelid) FROM pg_constraint
  WHERE contype = 'f' AND oid >= 16384 AND (confdeltype IN ('c', 'n', 'd') OR confupdtype IN ('c', 'n', 'd'))
  UNION ALL
  -- TRUNCATE ... CASCADE: whatever ON DELETE says.
  SELECT concat('x', confrelid), concat('x', conrelid) FROM pg_constraint WHERE contype = 'f' AND oid >= 16384
  UNION ALL SELECT concat(side, inhparent), concat(side, inhrelid)
  FROM pg_inherits JOIN pg_class c ON c.oid = inhparent AND c.relkind IN ('r', 'p', 'f'), (VALUES ('r'), ('w'), ('x')) AS sides(side)
  WHERE inhparent >= 16384
  UNION ALL SELECT concat('o', oid), concat('p', oprcode::oid) FROM pg_operator WHERE oid >= 16384 AND oprcode::oid >= 16384
  UNION ALL SELECT 'a', concat('p', castfunc) FROM pg_cast WHERE castfunc >= 16384
  UNION ALL SELECT 'a', concat('p', amproc::oid) FROM pg_amproc WHERE amproc::oid >= 16384
  UNION ALL SELECT 'a', concat('o', amopopr) FROM pg_amop WHERE amopopr >= 16384
  UNION ALL SELECT 'a', concat('p', rngsubdiff::oid) FROM pg_range WHERE rngsubdiff::oid >= 16384
  UNION ALL SELECT 't', concat('p', io) FROM pg_type, unnest(ARRAY[typinput::oid, typoutput, typreceive, typsend]) AS io
  WHERE pg_type.oid >= 16384 AND io >= 16384
  UNION ALL SELECT 'd', concat('p', evtfoid) FROM pg_event_trigger WHERE evtenabled <> 'D' AND evtevent <> 'login'
), parts(f, oid) AS (
  SELECT k, oid FROM called WHERE field <> 'relid'
  UNION ALL
  SELECT concat('p', aggfnoid::oid), part FROM pg_aggregate, unnest(ARRAY[aggtransfn::oid, aggfinalfn, aggcombinefn,
    aggserialfn, aggdeserialfn, aggmtransfn, aggminvtransfn, aggmfinalfn]) AS part WHERE aggfnoid::oid >= 16384
  UNION ALL SELECT concat('o', oid), oprcode FROM pg_operator WHERE oid >= 16384
  UNION ALL SELECT 'a', castfunc FROM pg_cast WHERE oid >= 16384
), asking(oid) AS MATERIALIZED (
  SELECT oid FROM pg_proc WHERE oid < 16384 AND proname = 'current_setting'
), asked(k, bytes) AS (
  -- The name as the tree has it: the numbers of its bytes, behind four of its length. NULL if it is no constant.
  SELECT DISTINCT k, string_to_array(found[1], ' ') FROM trees, regexp_matches(tree, concat(
    ':funcid (?:', (SELECT string_agg(oid::text, '|') FROM asking),
    ') [^{}]*:args [(](?:[{]CONST [^{}]*:constvalue [0-9]+ [[] ([-0-9 ]+) []][}])?'
  ), 'g') AS m(found) WHERE k IN (SELECT k FROM called JOIN asking USING (oid))
  UNION ALL
  -- By way of an operator, an aggregate, a cast.
  SELECT f, NULL FROM parts JOIN asking USING (oid) WHERE NOT EXISTS (SELECT FROM called WHERE k = f AND called.oid = parts.oid)
), marks(k, mark) AS (
  SELECT k, 'locks' FROM trees WHERE strpos(tree, '{ROWMARKCLAUSE ') > 0
  UNION ALL SELECT k, 'writes' FROM trees WHERE k LIKE 'p%' AND tree ~ ':commandType [2-9]'
  -- CURRENT_DATE and the like, and texts that become something else: 'now' becomes a time.
  UNION ALL SELECT DISTINCT k, 'timed' FROM trees WHERE tree ~ '[{](SQLVALUEFUNCTION|COERCEVIAIO) '
  -- So does the state that an aggregate begins with, and a value that a cast of a user's has read as its text.
  UNION ALL SELECT concat('p', aggfnoid::oid), 'timed' FROM pg_aggregate
  WHERE aggfnoid::oid >= 16384 AND concat(agginitval, ' ', aggminitval) ~* 'now|today|tomorrow|yesterday'
  UNION ALL SELECT 'a', 'timed' FROM pg_cast c JOIN pg_type t ON t.oid = c.casttarget
  WHERE c.oid >= 16384 AND castmethod = 'i' AND castcontext = 'i' AND t.typcategory = 'D'
  UNION ALL SELECT DISTINCT k, 'catalog' FROM called WHERE field = 'relid' AND oid > 0 AND oid < 16384
  UNION ALL SELECT concat('p', oid), 'definer' FROM pg_proc WHERE oid >= 16384 AND prosecdef
), named(k) AS (
  SELECT f FROM edges UNION SELECT f FROM builtin
)
SELECT 'f' AS kind, /*FINGERPRINT*/ AS a, NULL AS b, NULL AS c, NULL AS d
UNION ALL SELECT 'z', bytes::text, NULL, NULL, NULL FROM size
UNION ALL
SELECT 'p', concat('p', b.oid), n.nspname, b.proname, concat(b.prokind, b.provolatile,
  CASE b.lanname WHEN 'sql' THEN 's' WHEN 'plpgsql' THEN 'p' WHEN 'c' THEN 'c' WHEN 'internal' THEN 'i'
  WHEN 'plperl' THEN 'o' WHEN 'plperlu' THEN 'o' WHEN 'plpython3u' THEN 'o' WHEN 'plpython2u' THEN 'o' WHEN 'plpythonu' THEN 'o'
  WHEN 'pltcl' THEN 'o' WHEN 'pltclu' THEN 'o' WHEN 'plv8' THEN 'o' WHEN 'plr' THEN 'o' WHEN 'pllua' THEN 'o'
  WHEN 'plluau' THEN 'o' WHEN 'java' THEN 'o' WHEN 'javau' THEN 'o' ELSE 'x' END,
  CASE WHEN b.attribute THEN 'a' ELSE '-' END, b.extension)
FROM bodies b JOIN pg_namespace n ON n.oid = b.pronamespace
UNION ALL
-- In pieces: no row is longer than what is kept of one.
SELECT 's', concat('p', b.oid), lpad(piece::text, 9, '0'), substr(b.prosrc, piece * 7000 + 1, 7000), NULL
FROM bodies b, size, generate_series(0, (length(b.prosrc) - 1) / 7000) AS piece
WHERE b.prosrc <> '' AND b.prokind <> 'a' AND size.bytes <= /*LIMIT*/
UNION ALL
SELECT 'r', c.oid::text, n.nspname, c.relname,
  concat(c.relkind, c.relpersistence, CASE WHEN c.relrowsecurity THEN 's' END)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE (c.oid >= 16384 AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND c.relpersistence <> 't')
  OR c.oid IN (SELECT substr(k, 2)::oid FROM named WHERE left(k, 1) IN ('r', 'w'))
UNION ALL
SELECT 'o', concat('o', o.oid), n.nspname, o.oprname, NULL FROM pg_operator o JOIN pg_namespace n ON n.oid = o.oprnamespace
WHERE o.oid >= 16384
UNION ALL SELECT 'n', typname, NULL, NULL, NULL FROM pg_type WHERE typtype = 'd' AND oid >= 16384
UNION ALL SELECT 'e', f, t, NULL, NULL FROM edges WHERE f <> t
UNION ALL SELECT 'b', f, name, NULL, NULL FROM builtin
UNION ALL SELECT 'm', k, mark, NULL, NULL FROM marks
UNION ALL
SELECT 'g', k, (SELECT string_agg(CASE WHEN byte::int BETWEEN 1 AND 127 THEN chr(byte::int) ELSE '?' END, '' ORDER BY at)
  FROM unnest(bytes) WITH ORDINALITY AS u(byte, at) WHERE at BETWEEN 5 AND 1000), NULL, NULL FROM asked
UNION ALL
SELECT DISTINCT 'c', parts.f, p.proname, NULL, NULL FROM parts JOIN pg_proc p ON p.oid = parts.oid
WHERE p.oid < 16384 AND p.provolatile <> 'i'
