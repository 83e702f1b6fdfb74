//! The property test of schema changes: random DDL between random rows. Where the pipeline keeps
//! up, every change that can be followed is followed and the tables are equal, whether it is killed
//! now and then or not. Where it lags behind, and the catalogue it asks is newer than the rows,
//! either they are equal or it stops and says so: never a silent difference.

use std::time::Duration;

use crate::compare::{difference, pinned};
use crate::database::Database;
use crate::driver::{PATIENCE, Pipeline, Running};
use crate::random::{Random, seeds};
use crate::server::Server;

/// Types with a constant default and an expression of the row's number `{n}`.
#[rustfmt::skip]
const COLUMNS: &[(&str, &str, &str)] = &[
    ("int2", "7", "({n} % 30000)::int2"),
    ("int4", "42", "{n} * 2"),
    ("int8", "-1", "{n} * 3000000000"),
    ("text", "'it''s'", "CASE {n} % 4 WHEN 0 THEN '' WHEN 1 THEN E'\\r\\n\\\\N' WHEN 2 THEN 't' ELSE '🌍' || {n} END"),
    ("varchar(40)", "'v'", "left(md5({n}::text), 20)"),
    ("char(6)", "'c'", "left(md5({n}::text), abs({n}) % 6)"),
    ("numeric", "1.50", "CASE {n} % 5 WHEN 0 THEN 'NaN' WHEN 1 THEN '-Infinity' ELSE {n} / 7.0 END"),
    ("numeric(8,2)", "1.50", "CASE {n} % 5 WHEN 0 THEN 'NaN' ELSE {n} / 7.0 END"),
    ("bool", "true", "{n} % 2 = 0"),
    ("float4", "'-0'", "({n} / 3.0)::float4"),
    ("float8", "'NaN'", "CASE {n} % 5 WHEN 0 THEN 'NaN' WHEN 1 THEN '-0' WHEN 2 THEN 'Infinity' ELSE {n} / 3.0::float8 END"),
    ("money", "'-1234.56'", "({n} / 7.0)::numeric::money"),
    ("bytea", "'\\x00ff'", "decode(md5({n}::text), 'hex')"),
    ("timestamp", "'0044-03-15 BC'", "'9999-12-31'::timestamp + make_interval(secs => {n} / 3.0)"),
    ("timestamptz", "'2024-02-01 12:00+02'", "CASE {n} % 4 WHEN 0 THEN 'infinity' ELSE '2024-01-01'::timestamptz + make_interval(secs => {n}) END"),
    ("date", "'infinity'", "'2024-01-01'::date + {n}"),
    ("interval", "'-1 day'", "make_interval(days => {n}, secs => {n} / 7.0)"),
    ("text[]", "'{a,NULL}'", "ARRAY[{n}::text, NULL, 'a,b']"),
    ("jsonb", "'{\"a\": 1}'", "to_jsonb({n})"),
    ("varbit(9)", "B'01'", "({n} % 512)::bit(9)"),
    ("cidr", "'10.0.0.1'", "('10.0.0.0'::inet + {n})::cidr"),
    ("int4range", "'empty'", "int4range({n}, {n} + 5)"),
    ("mood", "'sad'", "CASE {n} % 2 WHEN 0 THEN 'sad' ELSE 'ok' END::mood"),
    ("amount", "1.5", "{n} / 7.0"),
];

/// Types that become others, and no value changes.
const WIDER: &[(&str, &str)] = &[
    ("int2", "int4"),
    ("int4", "int8"),
    ("int8", "numeric"),
    ("int4", "numeric(20,3)"),
    ("varchar(40)", "text"),
    ("char(6)", "char(9)"),
    ("numeric(8,2)", "numeric(10,4)"),
    ("numeric(8,2)", "numeric(20,2)"),
    ("numeric(10,4)", "numeric"),
    ("numeric", "text"),
    ("float4", "float8"),
    ("varbit(9)", "varbit"),
    ("cidr", "inet"),
    ("timestamp", "timestamptz"),
];

struct Column {
    name: String,
    kind: &'static str,
    value: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Identity {
    Key,
    FullWithKey,
    Full,
}

struct Evolution {
    random: Random,
    columns: Vec<Column>,
    /// Names that columns had.
    free: Vec<String>,
    names: u64,
    next: i64,
    identity: Identity,
    /// A column was replaced by one of its name and type: of that, rows and catalogue may say too
    /// little.
    replaced: bool,
}

impl Evolution {
    fn new(seed: u64) -> Self {
        let random = Random::new(seed);
        Self {
            random,
            columns: Vec::new(),
            free: Vec::new(),
            names: 0,
            next: 1,
            identity: Identity::Key,
            replaced: false,
        }
    }

    /// A new name, or one that another column had.
    fn name(&mut self) -> String {
        if !self.free.is_empty() && self.random.percent(30) {
            return self.free.remove(0);
        }
        self.names += 1;
        format!("c{}", self.names)
    }

    fn any(&mut self) -> usize {
        usize::try_from(self.random.below(self.columns.len() as u64)).unwrap()
    }

    fn rows(&mut self) -> String {
        let names: String = self.columns.iter().map(|column| format!(", {}", column.name)).collect();
        let values: String =
            self.columns.iter().map(|column| format!(", {}", column.value.replace("{n}", "id"))).collect();
        // The large ones are streamed while they run.
        let count = if self.random.percent(15) { 300 } else { 1 + self.random.below(6) };
        let (from, count) = (self.next, i64::try_from(count).unwrap());
        self.next += count;
        let mut sql = format!(
            "INSERT INTO t (id, pad{names}) SELECT id, repeat(md5(id::text), 1 + {count} / 50){values} FROM (SELECT generate_series({from}, {})::int) g(id)",
            from + count - 1
        );
        if self.identity == Identity::Full && self.random.percent(40) {
            sql = format!("{sql}; {sql}");
        }
        if !self.columns.is_empty() && self.random.percent(50) {
            let (index, shift) = (self.any(), self.random.below(9));
            let Column { name, value, .. } = &self.columns[index];
            let value = if shift == 0 { "NULL".to_owned() } else { value.replace("{n}", &format!("(id + {shift})")) };
            let null = if shift == 0 { format!("ALTER TABLE t ALTER {name} DROP NOT NULL; ") } else { String::new() };
            sql.push_str(&format!("; {null}UPDATE t SET {name} = {value} WHERE id % 3 = {}", self.names % 3));
        }
        if self.random.percent(15) {
            sql.push_str(&format!("; UPDATE t SET id = -id WHERE id % 11 = {}", self.random.below(11)));
        }
        if self.random.percent(25) {
            sql.push_str(&format!("; DELETE FROM t WHERE id % 7 = {}", self.random.below(7)));
        }
        sql
    }

    fn change(&mut self) -> String {
        match self.random.below(100) {
            0..32 => self.add(),
            32..42 if self.columns.len() > 1 => {
                let index = self.any();
                let name = self.columns.remove(index).name;
                self.free.push(name.clone());
                format!("ALTER TABLE t DROP {name}")
            }
            42..54 if !self.columns.is_empty() => {
                let (index, name) = (self.any(), self.name());
                let old = std::mem::replace(&mut self.columns[index].name, name.clone());
                self.free.push(old.clone());
                format!("ALTER TABLE t RENAME {old} TO {name}")
            }
            54..70 => self.widen(),
            70..80 => self.change_identity(),
            80..86 if !self.columns.is_empty() => {
                let index = self.any();
                let Column { name, kind, .. } = &self.columns[index];
                let default = COLUMNS.iter().find(|(column, ..)| column == kind).map(|(_, default, _)| *default);
                match default.filter(|_| self.random.percent(50)) {
                    Some(default) => format!("ALTER TABLE t ALTER {name} SET DEFAULT {default}"),
                    None => format!("ALTER TABLE t ALTER {name} DROP DEFAULT"),
                }
            }
            86..88 => "TRUNCATE t".to_owned(),
            88..94 if !self.columns.is_empty() => {
                let Column { name, kind, .. } = self.columns.last().unwrap();
                self.replaced = true;
                format!("ALTER TABLE t DROP {name}; ALTER TABLE t ADD {name} {kind}")
            }
            94..97 => format!("ALTER TYPE mood ADD VALUE IF NOT EXISTS 'new {}'", self.next),
            _ => "ALTER TABLE t ALTER id SET STATISTICS 10".to_owned(),
        }
    }

    fn add(&mut self) -> String {
        let name = self.name();
        let (kind, default, value) = *self.random.pick(COLUMNS);
        self.columns.push(Column { name: name.clone(), kind, value });
        let default = match self.random.below(3) {
            0 => String::new(),
            1 => format!(" DEFAULT {default}"),
            _ => format!(" NOT NULL DEFAULT {default}"),
        };
        format!("ALTER TABLE t ADD {name} {kind}{default}")
    }

    fn widen(&mut self) -> String {
        let wider: Vec<(usize, &'static str)> = (self.columns.iter().enumerate())
            .flat_map(|(index, column)| {
                WIDER.iter().filter(|(from, _)| *from == column.kind).map(move |(_, to)| (index, *to))
            })
            .collect();
        if wider.is_empty() {
            return self.add();
        }
        let (index, kind) = *self.random.pick(&wider);
        let column = &mut self.columns[index];
        column.kind = kind;
        format!("ALTER TABLE t ALTER {} TYPE {kind}", column.name)
    }

    fn change_identity(&mut self) -> String {
        let next = *self.random.pick(&[Identity::Key, Identity::FullWithKey, Identity::Full]);
        let was = std::mem::replace(&mut self.identity, next);
        let identity = if next == Identity::Key { "DEFAULT" } else { "FULL" };
        let key = match (was == Identity::Full, next == Identity::Full) {
            (true, false) => {
                "DELETE FROM t a USING t b WHERE a.id = b.id AND a.ctid < b.ctid; ALTER TABLE t ADD PRIMARY KEY (id); "
            }
            (false, true) => "ALTER TABLE t DROP CONSTRAINT t_pkey; ",
            _ => "",
        };
        format!("{key}ALTER TABLE t REPLICA IDENTITY {identity}")
    }

    /// DDL that is rolled back with the rows that used it.
    fn aborted(&mut self) -> String {
        let rows = self.rows();
        format!("SAVEPOINT s; ALTER TABLE t ADD never int DEFAULT 1; UPDATE t SET never = 5; {rows}; ROLLBACK TO s")
    }

    /// A transaction, and whether it makes two changes: of the shape between them the catalogue is
    /// asked too late.
    fn step(&mut self) -> (String, bool) {
        let draw = self.random.below(5);
        let sql = match draw {
            0 => format!("{}; {}", self.change(), self.rows()),
            1 => format!("{}; {}; {}", self.rows(), self.change(), self.rows()),
            2 => format!("BEGIN; {}; {}; {}; COMMIT", self.rows(), self.aborted(), self.rows()),
            3 => format!("{}; {}; {}; {}", self.rows(), self.change(), self.change(), self.rows()),
            _ => self.rows(),
        };
        (sql, draw == 3)
    }
}

/// How the pipeline runs beside the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// It has everything before the next step, though it is killed now and then.
    KeepsUp,
    /// It is started and killed without being waited for.
    Comes,
    /// It is started when all is over.
    Late,
}

fn names_the_table(stopped: &Running) -> bool {
    ["table public.t", "table t;"].iter().any(|table| stopped.said().contains(table))
}

/// Whether the history was followed to its end.
pub fn run(server: &'static Server, seed: u64, pace: Pace, set: &dyn Fn(&mut Pipeline)) -> bool {
    let streaming = seed.is_multiple_of(2);
    let mut database = if streaming { Database::streaming(server) } else { Database::new(server) };
    database.execute(
        "CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE DOMAIN amount AS numeric(10,2);
         CREATE TABLE t (id int PRIMARY KEY, pad text)",
    );
    database.create_slot();
    let mut pipeline = Pipeline::new(&database);
    set(&mut pipeline);
    let mut evolution = Evolution::new(seed);
    if evolution.random.percent(30) {
        pipeline.set("PG2ANY_SPLIT_LIMIT", "1");
    }
    let mut client = pinned(&database);
    let mut running = (pace == Pace::KeepsUp).then(|| pipeline.start());
    let mut history = Vec::new();
    for _ in 0..12 {
        let (sql, twice) = evolution.step();
        let sql = pipeline.target().held(&sql);
        history.push(sql.clone());
        if let Err(error) = client.batch_execute(&sql) {
            panic!("seed {seed}: {error:?} in {sql}\nafter {}", history.join(";\n"));
        }
        match (running.take(), pace) {
            (Some(process), Pace::Comes) if evolution.random.percent(50) => drop(process.kill()),
            (None, Pace::Comes) if evolution.random.percent(50) => running = Some(pipeline.start()),
            (process, Pace::KeepsUp) => {
                let mut process = process.unwrap_or_else(|| pipeline.start());
                let killed = evolution.random.percent(20);
                if killed {
                    std::thread::sleep(Duration::from_millis(evolution.random.below(40)));
                    process.kill();
                    process = pipeline.start();
                }
                let mark = database.mark();
                while process.ended().is_none() && !pipeline.has_mark(mark) {
                    std::thread::sleep(Duration::from_millis(10));
                }
                if !pipeline.has_mark(mark) {
                    let status = process.wait(PATIENCE);
                    // After a kill the catalogue is asked too late, too.
                    let late = killed || twice || evolution.replaced;
                    let announced = late && status.code() == Some(8) && names_the_table(&process);
                    assert!(announced, "seed {seed}: {status}: {}\nafter {}", process.said(), history.join(";\n"));
                    return false;
                }
                running = Some(process);
                if let Some(difference) = difference(&database, &pipeline) {
                    panic!("seed {seed}: {difference}\nafter {}", history.join(";\n"));
                }
            }
            (process, _) => running = process,
        }
        if pace == Pace::Comes {
            std::thread::sleep(Duration::from_millis(evolution.random.below(80)));
        }
    }
    drop(running);
    let mut last = pipeline.start_with(&[], &["--until-caught-up"]);
    let status = last.wait(PATIENCE);
    if pace != Pace::KeepsUp && status.code() == Some(8) {
        assert!(names_the_table(&last), "seed {seed}: {}", last.said());
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
            run(server, seed, Pace::KeepsUp, &|_| {});
        }
    }

    fn random_schema_changes_behind_a_lagging_pipeline_end_equal_or_announced(server) {
        let seeds = seeds(4);
        for pace in [Pace::Comes, Pace::Late] {
            let equal = seeds.iter().filter(|seed| run(server, **seed, pace, &|_| {})).count();
            println!("{pace:?}: {equal} of {} histories were followed to the end, the others stopped and said so", seeds.len());
        }
    }
}
