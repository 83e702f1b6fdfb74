//! SQL Server by itself, for scripts/bench.sh: statements, a plain bulk load of the rows of W1,
//! updates row by row.
//!
//! - `sqlserver session ADO` executes each line of its input as a statement, and prints the first
//!   value of each row. A statement that fails prints nothing. The line `=end=` is printed.
//! - `sqlserver bulk ADO ROWS` makes table `plain_w1`, loads it in one transaction, and prints
//!   seconds.
//! - `sqlserver rows ADO ROWS` updates rows of `pgbench_accounts` one by one in one transaction,
//!   and prints seconds.

use std::io::BufRead;
use std::time::Instant;

use tiberius::{Client, ColumnData, Config, IntoSql, SqlBulkCopyOption, TokenRow, time};
use tokio::net::TcpStream;
use tokio_util::compat::{Compat, TokioAsyncWriteCompatExt};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

async fn connect(ado: &str) -> Result<Client<Compat<TcpStream>>> {
    let mut config = Config::from_ado_string(ado)?;
    config.command_timeout(None);
    let stream = TcpStream::connect(config.get_addr()).await?;
    stream.set_nodelay(true)?;
    Ok(Client::connect(config, stream.compat_write()).await?)
}

async fn batch(client: &mut Client<Compat<TcpStream>>, sql: &str) -> Result<Vec<String>> {
    let rows = client.simple_query(sql).await?.into_results().await?.into_iter().flatten();
    let text = |value| match value {
        ColumnData::I32(Some(number)) => number.to_string(),
        ColumnData::I64(Some(number)) => number.to_string(),
        ColumnData::String(Some(text)) => text.into_owned(),
        other => format!("{other:?}"),
    };
    Ok(rows.filter_map(|row| row.into_iter().next().map(text)).collect())
}

async fn session(client: &mut Client<Compat<TcpStream>>) -> Result<()> {
    for sql in std::io::stdin().lock().lines() {
        match sql? {
            end if end == "=end=" => println!("{end}"),
            sql => batch(client, &sql).await.unwrap_or_default().iter().for_each(|value| println!("{value}")),
        }
    }
    Ok(())
}

async fn bulk(client: &mut Client<Compat<TcpStream>>, rows: i64) -> Result<f64> {
    const COLLATION: &str = "COLLATE Latin1_General_100_BIN2";
    let sql = format!(
        "DROP TABLE IF EXISTS plain_w1; CREATE TABLE plain_w1 (id bigint NOT NULL PRIMARY KEY, a nvarchar(max) {COLLATION}, b nvarchar(max) {COLLATION}, \
         at datetimeoffset(7), n int, d float, flag bit)"
    );
    batch(client, &sql).await?;
    let begin = Instant::now();
    batch(client, "BEGIN TRANSACTION").await?;
    let options = SqlBulkCopyOption::CheckConstraints | SqlBulkCopyOption::KeepNulls;
    let columns = ["[id]", "[a]", "[b]", "[at]", "[n]", "[d]", "[flag]"];
    let mut request = client.bulk_insert_with_options("[dbo].[plain_w1]", &columns, options, &[]).await?;
    let text = "0123456789abcdef".repeat(4);
    let at = time::DateTimeOffset::new(time::DateTime2::new(time::Date::new(739_616), time::Time::new(0, 7)), 0);
    for id in 1..=rows {
        let mut row = TokenRow::with_capacity(7);
        row.push(id.into_sql());
        row.push(text.clone().into_sql());
        row.push(text.clone().into_sql());
        row.push(ColumnData::DateTimeOffset(Some(at)));
        row.push(ColumnData::I32(i32::try_from(id).ok()));
        row.push(ColumnData::F64(Some(id as f64 * 1.1)));
        row.push((id % 2 == 0).into_sql());
        request.send(row).await?;
    }
    request.finalize().await?;
    batch(client, "COMMIT").await?;
    Ok(begin.elapsed().as_secs_f64())
}

async fn one_by_one(client: &mut Client<Compat<TcpStream>>, rows: i64) -> Result<f64> {
    let begin = Instant::now();
    batch(client, "BEGIN TRANSACTION").await?;
    for id in 1..=rows {
        let key = i32::try_from(id * 7919 % 1_000_000 + 1)?;
        client.execute("UPDATE pgbench_accounts SET abalance = @P1 WHERE aid = @P2", &[&7_i32, &key]).await?;
    }
    batch(client, "ROLLBACK").await?;
    Ok(begin.elapsed().as_secs_f64())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let what: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let [_, ado, ..] = what.as_slice() else { return Err("sqlserver session|bulk|rows ADO [ROWS]".into()) };
    let mut client = connect(ado).await?;
    match what.as_slice() {
        ["session", _] => session(&mut client).await?,
        ["bulk", _, rows] => println!("{:.3}", bulk(&mut client, rows.parse()?).await?),
        ["rows", _, rows] => println!("{:.3}", one_by_one(&mut client, rows.parse()?).await?),
        _ => return Err("session, bulk or rows".into()),
    }
    Ok(())
}
