//! What every destination promises.

use super::*;
use crate::destination::conformance::{Subject, check_all};

/// A file for each check.
struct Files {
    directory: tempfile::TempDir,
    made: u32,
}

impl Subject for Files {
    fn options(&mut self) -> Options {
        self.made += 1;
        let file = self.directory.path().join(format!("{}.db", self.made));
        Options::new(file.to_str().unwrap(), "test")
    }

    fn make(&self, options: Options) -> Box<dyn Destination> {
        Box::new(Sqlite::new(options))
    }

    fn rows(&self, options: &Options, table: &str) -> Vec<String> {
        let connection = Connection::open(options.uri.expose()).unwrap();
        let mut statement = connection.prepare(&format!("SELECT * FROM {table}")).unwrap();
        let columns = statement.column_count();
        let rows = statement.query_map([], |row| {
            let text = |index| match row.get(index).unwrap() {
                Value::Null => "NULL".to_owned(),
                Value::Integer(number) => number.to_string(),
                Value::Text(text) => text,
                other => format!("{other:?}"),
            };
            Ok((0..columns).map(text).collect::<Vec<_>>().join("|"))
        });
        let mut rows: Vec<String> = rows.unwrap().map(Result::unwrap).collect();
        rows.sort();
        rows
    }
}

#[test]
fn sqlite_keeps_what_the_contract_promises() {
    now(check_all(&mut Files { directory: tempfile::tempdir().unwrap(), made: 0 }));
}
