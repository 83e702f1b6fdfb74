-- What pg_catalog says about one relation, as one JSON value. $1 is the relation. What stands in braces is replaced: the slot by a
-- literal, publications by several, schemas by another arm of the union where publications of schemas exist (15 and newer).
-- The relation itself; a TRUNCATE, VACUUM FULL or a rewrite gives it another file node.
WITH RECURSIVE relation AS (
  SELECT c.oid, c.reltuples, c.relpersistence = 'u' AS unlogged, pg_catalog.pg_relation_filenode(c.oid) AS file_node
  FROM pg_catalog.pg_class c WHERE c.oid = $1
),
-- Its columns of now. xmin is the transaction that last changed what the catalogue says of one.
columns AS (
  SELECT a.*, a.xmin FROM pg_catalog.pg_attribute a JOIN relation r ON a.attrelid = r.oid WHERE a.attnum > 0 AND NOT a.attisdropped
),
-- The types of its columns, and those that domains and arrays among them stand on.
types(oid) AS (
  SELECT DISTINCT atttypid FROM columns
  UNION
  SELECT CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.typelem END
  FROM types s JOIN pg_catalog.pg_type t ON t.oid = s.oid
  WHERE t.typtype = 'd' OR (t.typcategory = 'A' AND t.typelem <> 0)
)
SELECT pg_catalog.json_build_object(
  'file_node', COALESCE(r.file_node, 0)::bigint,
  'unlogged', r.unlogged,
  'estimated_rows', CASE WHEN r.reltuples > 0 THEN r.reltuples::bigint END,
  -- A publication shows only some of its columns.
  'column_list', EXISTS (SELECT FROM pg_catalog.pg_publication_rel p
    WHERE p.prrelid IN (SELECT relid FROM pg_catalog.pg_partition_ancestors(r.oid) UNION SELECT r.oid)
      AND pg_catalog.to_jsonb(p) ->> 'prattrs' IS NOT NULL),
  -- attmissingval is an array of one element of the column's type; as text[] its quoting is taken off.
  'columns', (SELECT COALESCE(pg_catalog.json_agg(pg_catalog.json_build_object(
      'name', a.attname, 'number', a.attnum, 'not_null', a.attnotnull, 'generated', a.attgenerated <> '',
      'type', a.atttypid::bigint, 'modifier', a.atttypmod, 'changed', a.xmin::text::bigint,
      'default', CASE WHEN a.attidentity <> '' THEN 'GENERATED AS IDENTITY'
        WHEN a.attgenerated = '' THEN pg_catalog.pg_get_expr(d.adbin, d.adrelid) END,
      'missing', CASE WHEN a.atthasmissing THEN (a.attmissingval::text::text[])[1] END) ORDER BY a.attnum), '[]')
    FROM columns a LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum),
  -- Columns that are gone by now, of which rows that are still to come may have had one: dropped by a transaction that is not
  -- older than the slot's catalog_xmin. Twins are later columns of the same length, alignment and modifier.
  'dropped', (SELECT COALESCE(pg_catalog.json_agg(pg_catalog.json_build_object(
      'number', d.attnum, 'twins', (SELECT COALESCE(pg_catalog.json_agg(a.attnum ORDER BY a.attnum), '[]') FROM columns a WHERE a.attnum > d.attnum
        AND (a.attlen, a.attbyval, a.attalign, a.atttypmod) = (d.attlen, d.attbyval, d.attalign, d.atttypmod))) ORDER BY d.attnum), '[]')
    FROM pg_catalog.pg_attribute d
    WHERE d.attrelid = r.oid AND d.attnum > 0 AND d.attisdropped AND NOT EXISTS (
      SELECT FROM pg_catalog.pg_replication_slots s WHERE s.slot_name = {slot}
        AND (pg_catalog.age(d.xmin) > pg_catalog.age(s.catalog_xmin) OR pg_catalog.age(d.xmin) < 0))),
  -- The catalogue entries by which it is published; other ones mean that it left the publication and came back.
  'published_by', (SELECT COALESCE(pg_catalog.json_agg(e.oid::bigint ORDER BY e.oid), '[]') FROM (
    SELECT m.oid FROM pg_catalog.pg_publication_rel m JOIN pg_catalog.pg_publication p ON p.oid = m.prpubid
      WHERE p.pubname IN ({publications}) AND m.prrelid IN (SELECT relid FROM pg_catalog.pg_partition_ancestors(r.oid) UNION SELECT r.oid)
    UNION ALL SELECT p.oid FROM pg_catalog.pg_publication p WHERE p.puballtables AND p.pubname IN ({publications})
    {schemas}) e),
  -- Evaluated after the snapshot was taken: what could be seen has committed before it.
  'position', CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_insert_lsn() END,
  -- In the order of the index.
  'primary_key', (SELECT COALESCE(pg_catalog.json_agg(a.attname ORDER BY k.position), '[]')
    FROM pg_catalog.pg_index i
    CROSS JOIN LATERAL pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, position)
    JOIN columns a ON a.attnum = k.attnum
    WHERE i.indrelid = r.oid AND i.indisprimary AND k.position <= i.indnkeyatts),
  -- Only what is not a plain built-in type.
  'types', (SELECT COALESCE(pg_catalog.json_agg(pg_catalog.json_build_object(
      'oid', t.oid::bigint, 'schema', n.nspname, 'name', t.typname, 'kind', t.typtype, 'category', t.typcategory,
      'element', t.typelem::bigint, 'base', t.typbasetype::bigint, 'modifier', t.typtypmod,
      'labels', (SELECT pg_catalog.json_agg(e.enumlabel ORDER BY e.enumsortorder)
        FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid),
      'attributes', (SELECT pg_catalog.json_object_agg(a.attnum, a.attname ORDER BY a.attnum)
        FROM pg_catalog.pg_attribute a WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped)) ORDER BY t.oid), '[]')
    FROM types s JOIN pg_catalog.pg_type t ON t.oid = s.oid JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
    WHERE t.oid >= 16384 OR t.typtype <> 'b' OR (t.typcategory = 'A' AND t.typelem <> 0))
)::text
FROM relation r
