//! Values that a column cannot hold: bytes of a `SQL_ASCII` database that are not UTF-8.

use crate::database::Database;
use crate::driver::{PATIENCE, Pipeline};

const ROWS: &str = "CREATE TABLE t (id int PRIMARY KEY, v text, tags text[]); INSERT INTO t VALUES (1, 'fine', '{ok}');
    INSERT INTO t VALUES (2, convert_from('\\x61ff62', 'SQL_ASCII'), '{ok}');
    UPDATE t SET tags = ARRAY[convert_from('\\xfe', 'SQL_ASCII')] WHERE id = 1";

/// A pipeline from such a database, with a policy.
fn arrange(server: &'static crate::server::Server, policy: &str) -> (Database, Pipeline) {
    let mut database = Database::encoded(server, "ENCODING 'SQL_ASCII' LOCALE 'C'");
    database.create_slot();
    database.execute(ROWS);
    let mut pipeline = Pipeline::new(&database);
    pipeline.set("PG2ANY_UNREPRESENTABLE", policy);
    (database, pipeline)
}

on_each_server! {
    fn what_is_not_utf8_stops_by_default_and_names_table_column_and_value(server) {
        let (_database, pipeline) = arrange(server, "error");
        let mut running = pipeline.start_with(&[], &["--until-caught-up"]);
        assert_eq!(running.wait(PATIENCE).code(), Some(8), "{}", running.said());
        let said = running.said();
        for text in ["column \"v\"", "table t", "\"a\u{FFFD}b\"", "not UTF-8"] {
            assert!(said.contains(text), "{text}: {said}");
        }
        assert!(!pipeline.has("SELECT 1 FROM t"), "the transaction is whole or not there");
    }

    fn what_is_not_utf8_is_nulled_clamped_or_kept_as_bytes_and_counted(server) {
        for (policy, counter, first, second) in [
            ("null", "values_nulled", "fine|NULL", "NULL|{ok}"),
            ("clamp", "values_clamped", "fine|{\u{FFFD}}", "a\u{FFFD}b|{ok}"),
            ("text", "values_as_text", "fine|x'7bfe7d'", "x'61ff62'|{ok}"),
        ] {
            let (mut database, pipeline) = arrange(server, policy);
            let mut running = pipeline.start();
            running.until_caught_up(&pipeline, &mut database);
            assert_eq!(pipeline.lines("SELECT v, tags FROM t ORDER BY id"), [first, second], "{policy}");
            let (code, said, error) = pipeline.run(&["inspect", "--json"]);
            assert_eq!(code, 0, "{error}");
            let said: serde_json::Value = serde_json::from_str(&said).unwrap();
            assert_eq!(said["metrics"][counter], 2, "{policy}: {said}");
            running.terminate();
        }
    }
}
