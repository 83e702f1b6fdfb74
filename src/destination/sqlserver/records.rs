//! What is known of each table, in `dbo._pg2any_tables`: one line a table, with what is known as
//! JSON.

use tiberius::ColumnData;

use super::connection::{BINARY, Session};
use super::dialect::quote_text;
use super::error::{failed, is_duplicate};
use crate::destination::DestinationError;
use crate::destination::table::records::{read, written};
use crate::destination::table::{KnownTable, KnownTables, TableName};

/// Makes the table of records when it is missing.
pub(super) async fn create(session: &mut Session) -> Result<(), DestinationError> {
    let text = |length: u32| format!("nvarchar({length}) COLLATE {BINARY} NOT NULL");
    let (cursor, name) = (text(255), text(128));
    let sql = format!(
        "IF OBJECT_ID(N'dbo._pg2any_tables') IS NULL CREATE TABLE dbo._pg2any_tables (name {cursor}, oid bigint NOT NULL, \
         schema_name {name}, table_name {name}, target_schema {name}, target {name}, known nvarchar(max) NOT NULL, \
         PRIMARY KEY (name, oid), UNIQUE (target_schema, target))"
    );
    session.run(&sql, "creating pg2any's own tables failed").await
}

/// Reads what is known.
pub(super) async fn load(session: &mut Session, cursor: &str) -> Result<KnownTables, DestinationError> {
    let mut tables = KnownTables::default();
    let sql = "SELECT name, target_schema, target, known FROM dbo._pg2any_tables";
    for row in session.rows(sql, "reading _pg2any_tables failed").await? {
        let Ok([Some(name), Some(schema), Some(target), Some(known)]) = <[_; 4]>::try_from(row) else { continue };
        if name != cursor {
            tables.others.push((TableName { schema, name: target }, name));
            continue;
        }
        let known: KnownTable = read("_pg2any_tables", &known).map_err(|error| error.table(target))?;
        tables.tables.insert(known.oid, known);
    }
    Ok(tables)
}

/// Writes one table's record inside the open transaction.
pub(super) async fn store(session: &mut Session, cursor: &str, known: &KnownTable) -> Result<(), DestinationError> {
    const WRITING: &str = "writing _pg2any_tables failed";
    let record = written(known)?;
    let [cursor, schema, table, target_schema, target] =
        [cursor, &known.schema, &known.table, &known.target.schema, &known.target.name].map(quote_text);
    let oid = known.oid;
    let sql = format!(
        "DELETE FROM dbo._pg2any_tables WHERE name = {cursor} AND oid = {oid}; INSERT INTO dbo._pg2any_tables (name, oid, schema_name, \
         table_name, target_schema, target, known) VALUES ({cursor}, {oid}, {schema}, {table}, {target_schema}, {target}, @P1)"
    );
    let done = session.execute(&sql, vec![ColumnData::String(Some(record.into()))]).await?;
    done.map(|_| ()).map_err(|error| {
        let taken = is_duplicate(&error);
        let failure = failed(WRITING, error).table(known.target.to_string());
        // Another cursor of this database took the name since this one connected.
        if taken { failure.hint("Another cursor writes the table: map the schema to another name") } else { failure }
    })
}
