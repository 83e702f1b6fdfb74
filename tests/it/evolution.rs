//! The property test of schema changes: random DDL between random rows. Where the pipeline keeps up, every change that can be
//! followed is followed and the tables are equal. Where it lags behind, and the catalogue it asks is newer than the rows,
//! either they are equal or it stops and says so: never a silent difference.

use crate::compare::{difference, pinned};
use crate::database::Database;
use crate::driver::{PATIENCE, Pipeline};
use crate::random::{Random, seeds};
use crate::server::Server;

/// Types with a constant default and an expression of the row's `id`.
#[rustfmt::skip]
const COLUMNS: &[(&str, &str, &str)] = &[
    ("int", "42", "id * 2"),
    ("int8", "-1", "id * 3000000000"),
    ("text", "'it''s'", "md5(id::text)"),
    ("varchar(40)", "'v'", "left(md5(id::text), 20)"),
    ("numeric", "1.50", "id / 7.0"),
    ("numeric(8,2)", "1.50", "id / 7.0"),
    ("bool", "true", "id % 2 = 0"),
    ("float8", "'NaN'", "id / 3.0"),
    ("bytea", "'\\x00ff'", "decode(md5(id::text), 'hex')"),
    ("timestamptz", "'2024-02-01 12:00+02'", "'2024-01-01'::timestamptz + make_interval(secs => id)"),
    ("date", "'infinity'", "'2024-01-01'::date + id"),
    ("text[]", "'{a,NULL}'", "ARRAY[id::text]"),
    ("jsonb", "'{\"a\": 1}'", "to_jsonb(id)"),
];

struct Column {
    name: String,
    value: &'static str,
}

struct Evolution {
    random: Random,
    columns: Vec<Column>,
    names: u64,
    next_id: i64,
    /// A statement that is sent whole, as one transaction.
    full: bool,
}

impl Evolution {
    fn name(&mut self) -> String {
        self.names += 1;
        format!("c{}", self.names)
    }

    fn rows(&mut self) -> String {
        let names: String = self.columns.iter().map(|column| format!(", {}", column.name)).collect();
        let values: String = self.columns.iter().map(|column| format!(", {}", column.value)).collect();
        let (from, count) = (self.next_id, i64::try_from(1 + self.random.below(6)).unwrap());
        self.next_id += count;
        let mut sql = format!(
            "INSERT INTO t (id{names}) SELECT id{values} FROM (SELECT generate_series({from}, {})::int) g(id)",
            from + count - 1
        );
        if !self.columns.is_empty() && self.random.percent(50) {
            let column = usize::try_from(self.random.below(self.columns.len() as u64)).unwrap();
            let column = &self.columns[column];
            sql.push_str(&format!(
                "; UPDATE t SET {} = {} WHERE id % 3 = {}",
                column.name,
                column.value.replace("id", "(id + 1)"),
                self.names % 3
            ));
        }
        if self.random.percent(25) {
            sql.push_str(&format!("; DELETE FROM t WHERE id % 7 = {}", self.random.below(7)));
        }
        sql
    }

    fn change(&mut self) -> String {
        match self.random.below(10) {
            0..4 => {
                let name = self.name();
                let (kind, default, value) = *self.random.pick(COLUMNS);
                self.columns.push(Column { name: name.clone(), value });
                let default = match self.random.below(3) {
                    0 => String::new(),
                    1 => format!(" DEFAULT {default}"),
                    _ => format!(" NOT NULL DEFAULT {default}"),
                };
                format!("ALTER TABLE t ADD {name} {kind}{default}")
            }
            4..6 if self.columns.len() > 1 => {
                let index = usize::try_from(self.random.below(self.columns.len() as u64)).unwrap();
                format!("ALTER TABLE t DROP {}", self.columns.remove(index).name)
            }
            6..8 if !self.columns.is_empty() => {
                let index = usize::try_from(self.random.below(self.columns.len() as u64)).unwrap();
                let name = self.name();
                let old = std::mem::replace(&mut self.columns[index].name, name.clone());
                format!("ALTER TABLE t RENAME {old} TO {name}")
            }
            8 => {
                self.full = !self.full;
                format!("ALTER TABLE t REPLICA IDENTITY {}", if self.full { "FULL" } else { "DEFAULT" })
            }
            _ => "ALTER TABLE t ALTER id SET STATISTICS 10".to_owned(),
        }
    }

    /// DDL that is rolled back with the rows that used it.
    fn aborted(&mut self) -> String {
        let name = self.name();
        format!(
            "SAVEPOINT s; ALTER TABLE t ADD {name} int DEFAULT 1; INSERT INTO t (id, {name}) VALUES (-1, 5); ROLLBACK TO s"
        )
    }
}

fn run(server: &'static Server, seed: u64, lagging: bool) -> bool {
    let mut database = Database::new(server);
    database.execute("CREATE TABLE t (id int PRIMARY KEY)");
    database.create_slot();
    let mut pipeline = Pipeline::new(&database);
    let mut evolution = Evolution { random: Random::new(seed), columns: Vec::new(), names: 0, next_id: 1, full: false };
    if evolution.random.percent(30) {
        pipeline.set("PG2ANY_SPLIT_LIMIT", "1");
    }
    let mut client = pinned(&database);
    let mut running = (!lagging).then(|| pipeline.start());
    let mut history = Vec::new();
    for _ in 0..12 {
        let sql = match evolution.random.below(4) {
            0 => format!("{}; {}", evolution.change(), evolution.rows()),
            1 => format!("{}; {}; {}", evolution.rows(), evolution.change(), evolution.rows()),
            2 => format!("BEGIN; {}; {}; {}; COMMIT", evolution.rows(), evolution.aborted(), evolution.rows()),
            _ => evolution.rows(),
        };
        history.push(sql.clone());
        if let Err(error) = client.batch_execute(&sql) {
            panic!("{error:?} in {sql}");
        }
        if let Some(running) = &mut running {
            running.until_caught_up(&pipeline, &mut database);
            if let Some(difference) = difference(&database, &pipeline) {
                panic!("seed {seed}: {difference}\nafter {}", history.join(";\n"));
            }
        }
    }
    drop(running);
    let mut last = pipeline.start_with(&[], &["--until-caught-up"]);
    let status = last.wait(PATIENCE);
    if lagging && status.code() == Some(8) {
        return false;
    }
    assert!(status.success(), "seed {seed}: {status}: {}\nafter {}", last.said(), history.join(";\n"));
    if let Some(difference) = difference(&database, &pipeline) {
        panic!("seed {seed}: a silent difference: {difference}\nafter {}", history.join(";\n"));
    }
    true
}

on_each_server! {
    fn random_schema_changes_are_followed_while_the_pipeline_keeps_up(server) {
        for seed in seeds(4) {
            run(server, seed, false);
        }
    }

    fn random_schema_changes_behind_a_lagging_pipeline_end_equal_or_announced(server) {
        let seeds = seeds(8);
        let equal = seeds.iter().filter(|seed| run(server, **seed, true)).count();
        println!("{equal} of {} histories were followed to the end, the others stopped and said so", seeds.len());
    }
}
