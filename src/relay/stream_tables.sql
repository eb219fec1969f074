-- Relations with rows, views and sequences of a database, and why the changes of some are not in a publication's stream: see
-- src/relay/stream_beat.rs. OID, name, that reason, whether it has rows of its own, and by which columns these are told; not where integers and
-- UUIDs may be compared otherwise than usual. An error if there is no such publication.
-- What later versions added to pg_publication_rel is read as JSON; columns of pg_get_publication_tables by name.
SELECT c.oid, concat(quote_ident(n.nspname), '.', quote_ident(c.relname)),
  CASE WHEN c.relkind IN ('v', 'p') THEN NULL
    WHEN c.relkind = 'm' THEN 'it is a materialized view, whose refresh no stream tells of'
    WHEN c.relkind = 'f' THEN 'it is a foreign table'
    WHEN c.relkind = 'S' THEN 'it is a sequence'
    WHEN c.relpersistence <> 'p' THEN 'it is unlogged'
    WHEN p.puballtables IS NULL OR g.relid IS NULL THEN concat('it is not in the publication ', /*PUBLICATION*/)
    WHEN NOT (p.pubinsert AND p.pubupdate AND p.pubdelete AND p.pubtruncate) THEN 'the publication leaves out some kinds of changes'
    WHEN p.pubviaroot THEN 'the publication has publish_via_partition_root'
    WHEN EXISTS (SELECT FROM pg_publication_rel r WHERE r.prpubid = p.oid
      AND (r.prrelid = c.oid OR r.prrelid IN (SELECT a.relid FROM pg_partition_ancestors(c.oid) AS a))
      AND (to_jsonb(r) ->> 'prqual' IS NOT NULL OR to_jsonb(r) ->> 'prattrs' IS NOT NULL))
      THEN 'the publication leaves out some of its rows or columns' END,
  c.relkind = 'r',
  CASE WHEN NOT EXISTS (SELECT FROM pg_operator o WHERE o.oid >= 16384 AND o.oprname = '='
      AND o.oprleft = ANY ('{20,21,23,2950}') AND o.oprright = ANY ('{20,21,23,2950}'))
    THEN (SELECT json_agg(json_build_array(a.attname, a.atttypid::bigint) ORDER BY a.attnum)
      FROM pg_index i JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])
      WHERE i.indrelid = c.oid AND c.relkind IN ('r', 'p')
        AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident END) END
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_publication p ON p.pubname = /*PUBLICATION*/
LEFT JOIN pg_get_publication_tables(/*PUBLICATION*/) AS g ON g.relid = c.oid
WHERE c.oid >= 16384 AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND c.relpersistence <> 't'
