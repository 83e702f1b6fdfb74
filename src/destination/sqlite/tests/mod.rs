//! What the SQLite destination promises, with frames built by hand and files in a temporary
//! directory.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod changes;
mod conformance;
mod execute;
mod names;
mod net;
mod unique;
mod values;

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use rusqlite::Connection;
use rusqlite::types::Value;

use super::Sqlite;
pub(super) use crate::change::built::{Cells, table};
use crate::change::{Batch, Execution, Relation};
use crate::destination::{Checkpoint, Destination, DestinationError, Options};
use crate::position::{CommandIndex, Lsn, Position};

/// The calls of this destination never wait, so one poll is enough.
pub(super) fn now<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("the destination waited"),
    }
}

/// A destination in a directory of its own, and a source that has come so far.
pub(super) struct Fixture {
    pub directory: tempfile::TempDir,
    pub options: Options,
    pub destination: Sqlite,
    pub position: Option<Position>,
    transaction: u64,
}

impl Fixture {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = Options::new(directory.path().join("copy.db").to_str().unwrap(), "test");
        let mut fixture =
            Self { destination: Sqlite::new(options.clone()), options, directory, position: None, transaction: 0 };
        fixture.reconnect().unwrap();
        fixture
    }

    pub fn path(&self) -> PathBuf {
        self.directory.path().join("copy.db")
    }

    /// A destination made anew from the options, connected.
    pub fn reconnect(&mut self) -> Result<Checkpoint, DestinationError> {
        self.destination = Sqlite::new(self.options.clone());
        now(self.destination.connect())
    }

    /// Another program's connection to the file.
    pub fn sql(&self) -> Connection {
        Connection::open(self.path()).unwrap()
    }

    pub fn run(&self, sql: &str) {
        self.sql().execute_batch(sql).unwrap();
    }

    /// Rows of a query, each value as SQL would write it.
    pub fn query(&self, sql: &str) -> Vec<String> {
        let connection = self.sql();
        let mut statement = connection.prepare(sql).unwrap();
        let count = statement.column_count();
        let rows = statement.query_map([], |row| {
            let values: Vec<String> = (0..count)
                .map(|index| match row.get(index).unwrap() {
                    Value::Null => "NULL".to_owned(),
                    Value::Integer(number) => number.to_string(),
                    Value::Real(number) => format!("{number:?}"),
                    Value::Text(text) => format!("'{text}'"),
                    Value::Blob(bytes) => {
                        format!("x'{}'", bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
                    }
                })
                .collect();
            Ok(values.join(" "))
        });
        rows.unwrap().map(Result::unwrap).collect()
    }

    /// One source transaction, applied and committed; rolled back when it fails.
    pub fn apply(&mut self, commands: &[(Vec<u8>, Vec<Arc<Relation>>)]) -> Result<(), DestinationError> {
        let batch = self.batch(commands);
        let result = now(self.destination.execute(&batch, Execution::Net)).and_then(|()| self.commit());
        if result.is_err() {
            now(self.destination.rollback()).unwrap();
        }
        result
    }

    /// Commits up to the end of the last transaction.
    pub fn commit(&mut self) -> Result<(), DestinationError> {
        let end = Position::end_of(Lsn(self.transaction));
        now(self.destination.commit(self.position, end, None))?;
        self.position = Some(end);
        Ok(())
    }

    /// The commands as the next transaction.
    pub fn batch(&mut self, commands: &[(Vec<u8>, Vec<Arc<Relation>>)]) -> Batch {
        self.transaction += 16;
        let mut batch = Batch::default();
        for (index, (frame, relations)) in commands.iter().enumerate() {
            let buffer = batch.add_buffer(frame.clone().into());
            let position =
                Position { commit_end: Lsn(self.transaction), command: CommandIndex(u64::try_from(index).unwrap()) };
            batch.push(position, buffer, 0..frame.len(), relations);
        }
        batch
    }
}
