//! Tables as SQLite has them, whoever made them.

use rusqlite::Connection;

use super::dialect::{SqliteDialect, deferred_name, quote};
use super::error::{Doing, failed};
use crate::destination::DestinationError;
use crate::destination::table::{Answers, ExistingColumn, ExistingTable, Questions, TableName};

/// One table, with what only SQLite has.
#[derive(Clone, Debug)]
pub(super) struct SqliteTable {
    pub existing: ExistingTable,
    pub without_rowid: bool,
    pub strict: bool,
}

impl SqliteTable {
    /// Looks the table up; `None` when there is none.
    pub fn read(connection: &Connection, name: &str) -> Result<Option<Self>, DestinationError> {
        let reading = || format!("reading the columns of table {name:?} failed");
        // The list walks over all tables; their columns are found at once.
        let sql = "SELECT name, type, wr, strict FROM (SELECT 1 FROM pragma_table_xinfo(?1) LIMIT 1)
            CROSS JOIN pragma_table_list(?1) WHERE schema = 'main'";
        let mut statement = connection.prepare_cached(sql).doing(reading)?;
        let mut rows = statement.query([name]).doing(reading)?;
        let Some(row) = rows.next().doing(reading)? else { return Ok(None) };
        let kind: String = row.get(1).doing(reading)?;
        if kind != "table" {
            return Err(DestinationError::permanent(format!("{name:?} is a {kind} in the SQLite file, not a table"))
                .hint("Rename it, or map the schema to another name with the schema mapping"));
        }
        let name: String = row.get(0).doing(reading)?;
        let (without_rowid, strict) = (row.get(2).doing(reading)?, row.get(3).doing(reading)?);
        drop(rows);
        let columns = columns(connection, &name)?;
        let unique = unique(connection, &name, &columns)?;
        let existing = ExistingTable { name: TableName::plain(name), columns, unique };
        Ok(Some(Self { existing, without_rowid, strict }))
    }

    /// A name for the row number that no column hides.
    pub fn rowid(&self) -> Option<&'static str> {
        if self.without_rowid {
            return None;
        }
        ["rowid", "_rowid_", "oid"].into_iter().find(|name| self.existing.column(&SqliteDialect, name).is_none())
    }
}

fn columns(connection: &Connection, table: &str) -> Result<Vec<ExistingColumn>, DestinationError> {
    let reading = || format!("reading the columns of table {table:?} failed");
    let mut statement = connection
        .prepare_cached("SELECT name, type, \"notnull\", dflt_value, pk, hidden FROM pragma_table_xinfo(?1)")
        .doing(reading)?;
    let columns = statement.query_map([table], |row| {
        let name: String = row.get(0)?;
        let (_, collation, ..) = connection.column_metadata(Some("main"), table, name.as_str())?;
        let collation = collation.map(|collation| collation.to_string_lossy().into_owned());
        Ok(ExistingColumn {
            name,
            declared: row.get(1)?,
            not_null: row.get(2)?,
            default: row.get(3)?,
            key: row.get(4)?,
            generated: row.get::<_, u32>(5)? >= 2,
            collation: collation.filter(|collation| !collation.eq_ignore_ascii_case("BINARY")),
        })
    });
    columns.and_then(Iterator::collect).doing(reading)
}

/// The columns of the primary key and of each unique index.
fn unique(
    connection: &Connection,
    table: &str,
    columns: &[ExistingColumn],
) -> Result<Vec<Vec<Option<String>>>, DestinationError> {
    let reading = || format!("reading the indexes of table {table:?} failed");
    let key: Vec<_> = columns.iter().filter(|column| column.key > 0).map(|column| Some(column.name.clone())).collect();
    let mut unique: Vec<_> = Some(key).filter(|key| !key.is_empty()).into_iter().collect();
    let mut statement = connection
        .prepare_cached(
            "SELECT i.seqno, i.name FROM pragma_index_list(?1) l, pragma_index_info(l.name) i WHERE l.\"unique\" = 1 \
             ORDER BY l.seq, i.seqno",
        )
        .doing(reading)?;
    let mut rows = statement.query([table]).doing(reading)?;
    while let Some(row) = rows.next().doing(reading)? {
        if row.get::<_, u32>(0).doing(reading)? == 0 {
            unique.push(Vec::new());
        }
        if let Some(columns) = unique.last_mut() {
            columns.push(row.get(1).doing(reading)?);
        }
    }
    Ok(unique)
}

/// Answers what has to be known before it is decided what a relation version means.
pub(super) fn answer(
    connection: &Connection,
    questions: &Questions,
    deferred: u64,
) -> Result<Answers, DestinationError> {
    let name = &questions.target.name;
    let Some(table) = SqliteTable::read(connection, name)? else { return Ok(Answers::default()) };
    let empty =
        deferred == 0 && is_true(connection, name, &format!("SELECT NOT EXISTS (SELECT 1 FROM {})", quote(name)))?;
    let columns: Vec<String> = questions.distinct.iter().map(|column| quote(column)).collect();
    let distinct = columns.is_empty() || {
        let (list, nulls) = (columns.join(","), columns.join(" IS NULL OR "));
        let doubled = format!("SELECT 1 FROM {} GROUP BY {list} HAVING count(*) > 1 OR {nulls} IS NULL", quote(name));
        is_true(connection, name, &format!("SELECT NOT EXISTS ({doubled})"))?
    };
    Ok(Answers { table: Some(table.existing), empty, deferred, distinct })
}

fn is_true(connection: &Connection, table: &str, sql: &str) -> Result<bool, DestinationError> {
    connection
        .query_row(sql, [], |row| row.get(0))
        .map_err(|error| failed("looking at a table's rows failed", error).table(table))
}

/// The tables of deferred rows: the table that they belong to, and how many rows wait.
pub(super) fn deferred_tables(connection: &Connection) -> Result<Vec<(String, u64)>, DestinationError> {
    let reading = || "reading the deferred rows failed".to_owned();
    let prefix = deferred_name("");
    let mut statement = connection
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND substr(name, 1, length(?1)) = ?1")
        .doing(reading)?;
    let names: Vec<String> =
        statement.query_map([&prefix], |row| row.get(0)).and_then(Iterator::collect).doing(reading)?;
    let count = |name: &String| -> Result<(String, u64), DestinationError> {
        let sql = format!("SELECT count(*) FROM {}", quote(name));
        let waiting: i64 = connection.query_row(&sql, [], |row| row.get(0)).doing(reading)?;
        Ok((name.strip_prefix(&prefix).unwrap_or_default().to_owned(), waiting.unsigned_abs()))
    };
    names.iter().map(count).collect()
}
