-- What the statistics of a database say of its indexes: those that nothing was looked up in, and tables that are read whole time and again
-- although they are not small. Indexes that hold something together (unique ones, those of constraints) are none of the former. When one was made
-- no catalog says: by its number whoever asks knows since when it has been there. How many rows a table has the statistics of a standby do not say.
SELECT pg_catalog.format('unused %s', s.indexrelid),
       pg_catalog.format('%I.%I', s.schemaname, s.indexrelname),
       pg_catalog.format('%I.%I', s.schemaname, s.relname),
       pg_catalog.pg_relation_size(s.indexrelid),
       EXTRACT(epoch FROM pg_catalog.now() - COALESCE(d.stats_reset, pg_catalog.pg_postmaster_start_time()))::bigint
  FROM pg_catalog.pg_stat_user_indexes s
  JOIN pg_catalog.pg_index i ON i.indexrelid = s.indexrelid
  JOIN pg_catalog.pg_stat_database d ON d.datname = pg_catalog.current_database()
 WHERE s.idx_scan = 0 AND i.indisvalid AND NOT i.indisunique AND NOT i.indisreplident
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint c WHERE c.conindid = s.indexrelid)
   AND pg_catalog.pg_relation_size(s.indexrelid) >= 1048576
 ORDER BY 4 DESC LIMIT 20;
SELECT 'missing', '',
       pg_catalog.format('%I.%I', s.schemaname, s.relname),
       s.seq_scan,
       s.seq_tup_read
  FROM pg_catalog.pg_stat_user_tables s
  JOIN pg_catalog.pg_class c ON c.oid = s.relid
  CROSS JOIN LATERAL (SELECT COALESCE(NULLIF(s.n_live_tup, 0), c.reltuples)) n (live)
 WHERE n.live >= 10000 AND s.seq_scan >= 100 AND s.seq_scan > COALESCE(s.idx_scan, 0)
   AND s.seq_tup_read / NULLIF(s.seq_scan, 0) >= n.live / 2
 ORDER BY s.seq_tup_read DESC LIMIT 20
