//! Publications that change: what decides which rows are sent is compared, because the stream does
//! not say that it changed.

use std::time::Duration;

use crate::compare::assert_equal;
use crate::delivery::{arrange, fill};
use crate::driver::PATIENCE;
use crate::refusals::{GAP, SOURCE, lsns};

const TABLE: &str = "CREATE TABLE t (id bigint PRIMARY KEY, v text)";
const SAID: &str = "what is published changed between";

/// The line of a log that says it.
fn announced(said: &str) -> &str {
    said.lines().find(|line| line.contains(SAID)).unwrap_or_default()
}

on_each_server! {
    fn a_publication_that_was_narrowed_and_widened_again_is_announced_with_both_positions(server) {
        let (mut database, pipeline) = arrange(server, TABLE);
        let name = database.name.clone();
        database.execute("INSERT INTO t VALUES (1, 'x'), (2, 'x')");
        pipeline.catch_up();
        database.execute("VACUUM FREEZE pg_publication");
        database.execute("VACUUM FULL pg_publication");
        assert!(!pipeline.catch_up().contains(SAID), "the rows are the same ones");
        let before = database.text("SELECT pg_current_wal_insert_lsn()");
        database.execute(&format!("ALTER PUBLICATION {name} SET (publish = 'insert')"));
        database.execute("UPDATE t SET v = 'lost' WHERE id = 1");
        database.execute(&format!("ALTER PUBLICATION {name} SET (publish = 'insert, update, delete, truncate')"));
        let after = database.text("SELECT pg_current_wal_insert_lsn()");
        database.execute("INSERT INTO t VALUES (3, 'x')");
        let mut strict = pipeline.start_with(&[("PG2ANY_ON_PUBLICATION_CHANGE", "stop")], &[]);
        assert_eq!(strict.wait(PATIENCE).code(), Some(GAP), "{}", strict.said());
        let said = strict.said();
        assert!(said.contains("run once with --on-publication-change warn") && said.contains("is again what it was"), "{said}");
        assert!(!pipeline.has("SELECT 1 FROM t WHERE id = 3"));
        let said = pipeline.catch_up();
        let line = announced(&said);
        let position = |text: &str| text.parse::<pg2any_lib::Lsn>().unwrap();
        let positions: Vec<_> = lsns(line).into_iter().map(position).collect();
        assert!(positions.iter().any(|lsn| *lsn <= position(&before)), "{line}");
        assert!(positions.iter().any(|lsn| *lsn >= position(&after)), "{line}");
        assert!(line.contains(&format!("publication \"{name}\"")), "{line}");
        assert!(!pipeline.catch_up().contains(SAID), "once is enough");
    }

    fn a_publication_that_is_away_while_rows_are_written_is_a_gap(server) {
        let (mut database, pipeline) = arrange(server, TABLE);
        let name = database.name.clone();
        database.execute("INSERT INTO t VALUES (1, 'x')");
        pipeline.catch_up();
        database.execute(&format!("ALTER PUBLICATION {name} RENAME TO {name}_away"));
        database.execute("INSERT INTO t VALUES (2, 'never sent')");
        database.execute(&format!("ALTER PUBLICATION {name}_away RENAME TO {name}"));
        database.execute("INSERT INTO t VALUES (3, 'x')");
        for _ in 0..2 {
            let mut running = pipeline.start();
            assert_eq!(running.wait(PATIENCE).code(), Some(GAP), "{}", running.said());
            assert!(running.said().contains("load the tables anew"), "{}", running.said());
        }
        assert!(!pipeline.has("SELECT 1 FROM t WHERE id = 3"));
    }

    fn a_publication_that_changes_while_it_is_followed_is_announced_within_seconds(server) {
        let (mut database, pipeline) = arrange(server, TABLE);
        let name = database.name.clone();
        let mut running = pipeline.start();
        running.until_caught_up(&pipeline, &mut database);
        database.execute(&format!("ALTER PUBLICATION {name} RENAME TO {name}_away"));
        database.execute(&format!("ALTER PUBLICATION {name}_away RENAME TO {name}"));
        running.until_said("is again what it was");
        database.execute(&format!("ALTER PUBLICATION {name} SET (publish = 'insert')"));
        running.until_said("pubupdate was true, is false");
        running.until_caught_up(&pipeline, &mut database);
        running.terminate();
    }

    fn the_tables_schemas_columns_and_filters_of_a_publication_are_compared(server) {
        let (mut database, pipeline) = arrange(server, "CREATE TABLE a (id int PRIMARY KEY, v int, w int); CREATE SCHEMA s; CREATE TABLE s.b (id int PRIMARY KEY)");
        let name = database.name.clone();
        let mut execute = |sql: &str| database.execute(&sql.replace("{pub}", &name));
        execute("DROP PUBLICATION {pub}; CREATE PUBLICATION {pub} FOR TABLE mark, a");
        pipeline.catch_up();
        execute("ALTER TABLE a RENAME w TO x; ALTER TABLE a RENAME TO c; ALTER TABLE c RENAME TO a");
        assert!(!pipeline.catch_up().contains(SAID));
        for (sql, says) in [
            ("ALTER PUBLICATION {pub} SET TABLE mark, a (id, v)", "table public.a was taken out and added again: columns was not set, is id, v"),
            ("ALTER PUBLICATION {pub} SET TABLE mark, a (id, v) WHERE (id > 7)", "WHERE was not set, is (id > 7)"),
            ("ALTER PUBLICATION {pub} DROP TABLE a", "table public.a was taken out"),
            ("ALTER PUBLICATION {pub} ADD TABLES IN SCHEMA s", "schema s was added"),
            ("ALTER PUBLICATION {pub} DROP TABLES IN SCHEMA s; ALTER PUBLICATION {pub} ADD TABLES IN SCHEMA s", "schema s was taken out and added again"),
        ] {
            execute(sql);
            let said = pipeline.catch_up();
            assert!(announced(&said).contains(says), "{sql}: {said}");
        }
        assert!(!pipeline.catch_up().contains(SAID));
    }

    fn a_dropped_publication_is_noticed_before_a_lasting_backlog_ends(server) {
        let (mut database, mut pipeline) = arrange(server, TABLE);
        for round in 0..40 {
            database.execute(&fill("t", 1 + round * 10_000, 5000));
        }
        pipeline.set("PG2ANY_FAILPOINTS", "source.flushed=pause");
        let mut running = pipeline.start();
        running.until_said("streaming from the source");
        let name = database.name.clone();
        database.execute(&format!("DROP PUBLICATION {name}"));
        let status = running.wait(Duration::from_secs(20));
        assert_eq!(status.code(), Some(SOURCE), "{}", running.said());
        assert!(running.said().contains("load the tables anew"), "{}", running.said());
        assert!(!pipeline.has("SELECT 1 FROM t WHERE id = 391000"), "only at the end of the backlog");
    }

    fn a_dropped_publication_is_noticed_while_reading_is_paused(server) {
        let (mut database, mut pipeline) = arrange(server, TABLE);
        database.execute("INSERT INTO t VALUES (0, 'x')");
        pipeline.catch_up();
        let locker = rusqlite::Connection::open(pipeline.file()).unwrap();
        locker.execute_batch("BEGIN EXCLUSIVE").unwrap();
        pipeline.set("PG2ANY_DISK_QUOTA", "8MB").set("CDC_TRANSACTION_SEGMENT_SIZE_MB", "1").set("PG2ANY_ENABLE_COMPRESSION", "false");
        for round in 0..20 {
            database.execute(&fill("t", round * 10_000 + 1, 5000));
        }
        let mut running = pipeline.start();
        running.until_said("reading from the source is paused");
        let name = database.name.clone();
        database.execute(&format!("DROP PUBLICATION {name}"));
        let status = running.wait(Duration::from_secs(30));
        assert_eq!(status.code(), Some(SOURCE), "{}", running.said());
        drop(locker);
    }

    fn a_publication_that_stays_as_it_is_is_no_news(server) {
        let (mut database, pipeline) = arrange(server, TABLE);
        // The first run warns of a slot that it did not make.
        pipeline.catch_up();
        let mut running = pipeline.start();
        for id in 0..3 {
            database.execute(&format!("INSERT INTO t VALUES ({id}, 'x')"));
            running.until_caught_up(&pipeline, &mut database);
            database.execute("ANALYZE t");
        }
        let said = running.terminate();
        assert!(!said.contains(SAID) && !said.contains("WARN"), "{said}");
        assert_equal(&database, &pipeline);
    }
}
