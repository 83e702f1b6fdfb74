//! PostgreSQL as the judge: random values of each type, printed by PostgreSQL, replicated, read
//! back, turned into PostgreSQL's text again by the documented inverse, compared byte by byte. As
//! inserted and as updated value, as key, and as the old value that finds a row under FULL.

use pg2any_lib::destination::sqlite::SqliteColumn;
use pg2any_lib::destination::value::DestinationColumn;
use postgres::Client;

use super::types::SETUP;
use crate::compare::{Table, pinned, published, source_rows};
use crate::database::{Database, HOSTILE_DEFAULTS};
use crate::driver::{PATIENCE, Pipeline};
use crate::random::seeds;
use crate::server::Server;
use crate::target::Target;

/// A type and an expression for a random value of it (`{g}` is the row's number).
#[rustfmt::skip]
pub const TYPES: &[(&str, &str)] = &[
    ("bool", "random() < 0.5"),
    ("int2", "(random() * 65535 - 32768)::int2"),
    ("int4", "(random() * 4294967295 - 2147483648)::int4"),
    ("int8", "((random() * 4294967295)::int8 << 32) # (random() * 4294967295)::int8"),
    ("xid8", "((random() * 4294967295)::int8::numeric * 4294967296 + (random() * 4294967295)::int8)::text::xid8"),
    ("oid", "(random() * 4294967295)::int8::oid"),
    ("float4", "((0.1 + random() * 0.9) * (1 - 2 * (random() < 0.5)::int) * 10.0::float8 ^ (random() * 74 - 37)::int)::float4"),
    ("float8", "CASE WHEN random() < 0.9 THEN (random() * 2 - 1) * 10.0::float8 ^ (random() * 600 - 300)::int ELSE (ARRAY['NaN', 'Infinity', '-Infinity', '-0', '5e-324', '1e23']::float8[])[1 + (random() * 5)::int] END"),
    ("float", "((random() * 2 - 1) * 10 ^ (random() * 20 - 4)::int)::float4::float8"),
    ("double precision", "trunc((random() * 2 - 1) * 2 ^ 60) * 2 ^ (random() * 8)::int"),
    ("numeric", "CASE WHEN random() < 0.9 THEN (random() * 2 - 1)::numeric * 10::numeric ^ (random() * 60 - 30)::int ELSE (ARRAY['NaN', 'Infinity', '-Infinity', '0.000', '1e1000', '1e-1000']::numeric[])[1 + (random() * 5)::int] END"),
    ("numeric(10,2)", "((random() * 2 - 1) * 99999999)::numeric(10,2)"),
    ("numeric(15,6)", "((random() * 2 - 1) * 999999999)::numeric(15,6)"),
    ("numeric(18,0)", "((random() * 2 - 1) * 1e17)::numeric(18,0)"),
    ("numeric(15,15)", "(random() * 2 - 1)::numeric(15,15)"),
    ("numeric(6,-3)", "((random() * 2 - 1) * 99999999)::numeric(6,-3)"),
    ("numeric(40,20)", "((random() * 2 - 1)::numeric * 1e19)::numeric(40,20)"),
    ("money", "((random() * 2 - 1) * 1e12)::numeric::money"),
    ("text", "(SELECT string_agg(chr(CASE WHEN random() < 0.5 THEN 1 + (random() * 126)::int WHEN random() < 0.5 THEN 160 + (random() * 50000)::int ELSE 65536 + (random() * 900000)::int END), '') FROM generate_series(0, (random() * 30)::int + {g} * 0))"),
    ("char(7)", "left(md5(random()::text), (random() * 7)::int)::char(7)"),
    ("bytea", "decode(substr(md5(random()::text) || md5(random()::text), 1, 2 * (random() * 32)::int), 'hex')"),
    ("date", "CASE WHEN random() < 0.5 THEN '4713-01-01 BC'::date + (random() * 6000000)::int WHEN random() < 0.9 THEN '10000-01-01'::date + (random() * 2000000000)::int ELSE '-infinity' END"),
    ("time", "'00:00'::time + random() * interval '24 hours'"),
    ("timetz", "('00:00'::time + random() * interval '24 hours') AT TIME ZONE make_interval(mins => (random() * 1800 - 900)::int)"),
    ("timestamp", "CASE WHEN random() < 0.9 THEN '4000-01-01 BC'::timestamp + random() * interval '14000 years' ELSE 'infinity' END"),
    ("timestamptz", "'0004-01-01 BC'::timestamptz + random() * interval '40000 years'"),
    ("interval", "make_interval(years => (random() * 200 - 100)::int, months => (random() * 24 - 12)::int, days => (random() * 60 - 30)::int, secs => random() * 200000 - 100000)"),
    ("uuid", "gen_random_uuid()"),
    ("json", "json_build_object('k' || {g}, random(), 'l', ARRAY[NULL, 'x\"\\', random()::text])"),
    ("jsonb", "jsonb_build_object('k' || {g}, random()::numeric, 'l', ARRAY[NULL, 'x\"\\', random()::text])"),
    ("varchar(9)", "left(md5(random()::text), (random() * 9)::int)"),
    ("cidr", "set_masklen('10.0.0.0'::cidr, 8 + {g} % 25)"),
    ("macaddr", "(left(md5(random()::text), 12))::macaddr"),
    ("macaddr8", "(left(md5(random()::text), 16))::macaddr8"),
    ("int4multirange", "int4multirange(int4range(0, 1 + (random() * 9)::int), int4range(20, 21 + (random() * 1e6)::int))"),
    ("numrange", "numrange((random() * 100)::numeric, NULL, '(]')"),
    ("mood", "(ARRAY['sad', 'ok', 'very happy, indeed']::mood[])[1 + (random() * 2)::int]"),
    ("pair", "ROW({g}, 'a \" ,()' || md5(random()::text))::pair"),
    ("amount", "(random() * 1e6)::numeric(10,2)"),
    ("inet", "('10.0.0.0'::inet + (random() * 1e6)::int8)"),
    ("bit(13)", "((random() * 8191)::int)::bit(13)"),
    ("varbit", "substring(((random() * 2147483647)::int)::bit(32)::varbit FROM 1 FOR (random() * 32)::int)"),
    ("pg_lsn", "'0/0'::pg_lsn + (random() * 1e15)::numeric(20,0)"),
    ("float8[]", "ARRAY[random(), NULL, random() * 1e300]"),
    ("text[]", "ARRAY[md5(random()::text), 'a \"b\" \\ ' || {g}, NULL]"),
    ("int8range", "int8range((random() * 1e6)::int8, (1e6 + random() * 1e6)::int8)"),
    ("tstzrange", "tstzrange('2000-01-01', '2000-01-01'::timestamptz + random() * interval '100 years')"),
    ("point", "point(random() * 1e10, random())"),
    ("tsvector", "to_tsvector('simple', md5(random()::text) || ' word' || {g})"),
];

/// Where the value table says that values sort as in PostgreSQL: how they do not.
fn order(client: &mut Client, pipeline: &Pipeline, table: &Table) -> Option<String> {
    let claim = SqliteColumn.family(table.columns[1].1).order;
    if !["as in PostgreSQL", "by bytes (as"].iter().any(|same| claim.starts_with(same)) {
        return None;
    }
    // Not those of which it says something else.
    let sortable = r"v::text <> '-0' AND v::text NOT LIKE '% BC' AND v::text !~ '^\d{5,}-'";
    let sql = format!("SELECT id::text FROM {0} WHERE {sortable} ORDER BY v, {0}.id", table.name);
    let here: Vec<String> = client.query(&sql, &[]).unwrap().iter().map(|row| row.get(0)).collect();
    let ids = here.join(",");
    let there = pipeline.lines(&format!("SELECT id FROM {} WHERE id IN ({ids}) ORDER BY v, id", table.name));
    (here != there).then(|| format!("{} ({claim}): {here:?} there {there:?}", table.name))
}

/// Random values of every type, replicated and read back.
pub fn random_values(server: &'static Server, usual: u64, set: &dyn Fn(&mut Pipeline)) {
    for seed in seeds(usual) {
        let mut database = Database::new(server);
        for setting in HOSTILE_DEFAULTS {
            database.default(setting);
        }
        database.create_slot();
        let mut client = pinned(&database);
        client.batch_execute(SETUP).unwrap();
        #[allow(clippy::cast_precision_loss)]
        client.batch_execute(&format!("SELECT setseed({})", (seed % 1000) as f64 / 1000.0)).unwrap();
        let mut pipeline = Pipeline::new(&database);
        set(&mut pipeline);
        let target = pipeline.target().clone();
        for (number, (kind, value)) in TYPES.iter().enumerate() {
            let value = target.random(kind, value);
            let mut statements = vec![
                format!("CREATE TABLE p{number} (id int PRIMARY KEY, v {kind})"),
                format!("INSERT INTO p{number} SELECT g, {} FROM generate_series(1, 60) g", value.replace("{g}", "g")),
                format!("UPDATE p{number} SET v = {} WHERE id % 3 = 0", value.replace("{g}", "id")),
                format!(
                    "CREATE TABLE f{number} (v {kind}, w {kind}, n int); ALTER TABLE f{number} REPLICA IDENTITY FULL"
                ),
                format!(
                    "INSERT INTO f{number} SELECT v, NULL, 0 FROM p{number} UNION ALL SELECT NULL, v, 1 FROM p{number}"
                ),
                format!("DELETE FROM f{number} WHERE ctid IN (SELECT ctid FROM f{number} ORDER BY ctid LIMIT 20)"),
                format!("UPDATE f{number} SET n = n + 2"),
            ];
            if !["json", "point"].contains(kind) {
                statements.push(format!("CREATE TABLE k{number} (v {kind} PRIMARY KEY, n int)"));
                statements
                    .push(format!("INSERT INTO k{number} SELECT DISTINCT v, 0 FROM p{number} WHERE v IS NOT NULL"));
                statements.push(format!("UPDATE k{number} SET n = 1"));
                statements.push(format!("DELETE FROM k{number} WHERE ctid IN (SELECT ctid FROM k{number} LIMIT 5)"));
            }
            for sql in statements {
                if let Err(error) = client.batch_execute(&sql) {
                    panic!("{kind}: {error:?} in {sql}");
                }
            }
        }
        // A hundred and fifty tables are made, which takes a server a while.
        pipeline.catch_up_within(5 * PATIENCE);
        // The session was idle meanwhile, and its database ends such ones.
        let mut client = pinned(&database);
        let mut failures = Vec::new();
        for table in published(&mut client, &database.name) {
            let wanted = source_rows(&mut client, &table);
            match target.stored(&table) {
                Ok(got) if got == wanted => {}
                Ok(got) => {
                    let missing: Vec<_> = wanted.iter().filter(|row| !got.contains(row)).take(3).collect();
                    let extra: Vec<_> = got.iter().filter(|row| !wanted.contains(row)).take(3).collect();
                    failures.push(format!("{}: missing {missing:?}, too much {extra:?}", table.name));
                }
                Err(_) if wanted.is_empty() => {}
                Err(error) => failures.push(format!("{}: {error}", table.name)),
            }
        }
        for table in published(&mut client, &database.name) {
            let is_asked = matches!(target, Target::File(_)) && table.name.starts_with('p');
            if let Some(difference) = is_asked.then(|| order(&mut client, &pipeline, &table)).flatten() {
                failures.push(difference);
            }
        }
        let kinds: Vec<_> = TYPES.iter().enumerate().map(|(number, (kind, _))| format!("{number} {kind}")).collect();
        assert!(failures.is_empty(), "seed {seed} (PG2ANY_TEST_SEED={seed}):\n{}\n{kinds:?}", failures.join("\n"));
    }
}

on_each_server! {
    fn random_values_of_every_type_come_back_byte_by_byte(server) {
        random_values(server, 2, &|_| {});
    }
}
