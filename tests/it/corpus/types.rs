//! One value of each type and each edge: inserted, updated to and away from, as old value under
//! FULL, as key.

use std::collections::BTreeSet;

use super::report;
use crate::compare::{Table, TextRow, pinned, published, quote, source_rows};
use crate::database::{Database, HOSTILE_DEFAULTS};
use crate::driver::{PATIENCE, Pipeline};
use crate::server::{Server, say};
use rusqlite::Connection;
use rusqlite::types::Value;

/// Name, type, literal, what SQLite holds: `i:` integer, `r:` real, `t:` text, `b:` blob in hex.
pub type TypeCase = (&'static str, &'static str, &'static str, &'static str);

/// Types that a case needs first.
pub const SETUP: &str = "
    CREATE TYPE mood AS ENUM ('sad', 'ok', 'very happy, indeed');
    CREATE TYPE pair AS (a int, b text);
    CREATE DOMAIN positive AS int CHECK (VALUE > 0);
    CREATE DOMAIN amount AS numeric(10,2);
    CREATE DOMAIN small_positive AS positive CHECK (VALUE < 100);
    CREATE DOMAIN mood_domain AS mood;
    CREATE DOMAIN list AS text[];
    CREATE DOMAIN moment AS timestamptz;
    CREATE DOMAIN bytes AS bytea;
    CREATE TYPE float_range AS RANGE (subtype = float8)";

#[rustfmt::skip]
pub const CASES: &[TypeCase] = &[
    ("boolean_true", "bool", "true", "i:1"),
    ("boolean_false", "bool", "false", "i:0"),
    ("int2_smallest", "int2", "'-32768'", "i:-32768"),
    ("int2_largest", "int2", "32767", "i:32767"),
    ("int4_smallest", "int4", "'-2147483648'", "i:-2147483648"),
    ("int4_largest", "int4", "2147483647", "i:2147483647"),
    ("int8_smallest", "int8", "'-9223372036854775808'", "i:-9223372036854775808"),
    ("int8_largest", "int8", "9223372036854775807", "i:9223372036854775807"),
    ("int8_beyond_a_float", "int8", "9007199254740993", "i:9007199254740993"),
    ("oid_largest", "oid", "4294967295", "i:4294967295"),
    ("xid_largest", "xid", "'4294967295'", "i:4294967295"),
    ("xid8_largest", "xid8", "'18446744073709551615'", "t:18446744073709551615"),
    ("float4_one_tenth", "float4", "0.1", "r:0.1"),
    ("float4_largest", "float4", "'3.4028235e38'", "r:3.4028235e38"),
    ("float4_denormal", "float4", "'1e-45'", "r:1e-45"),
    ("float4_integer", "float4", "16777216", "r:16777216.0"),
    ("float4_nan", "float4", "'NaN'", "t:NaN"),
    ("float4_infinity", "float4", "'Infinity'", "r:inf"),
    ("float4_negative_zero", "float4", "'-0'", "b:2d30"),
    ("float8_needs_17_digits", "float8", "0.30000000000000004", "r:0.30000000000000004"),
    ("float8_largest", "float8", "'1.7976931348623157e308'", "r:1.7976931348623157e308"),
    ("float8_smallest_denormal", "float8", "'5e-324'", "r:5e-324"),
    ("float8_integer", "float8", "3", "r:3.0"),
    ("float8_1e22", "float8", "1e22", "r:1e22"),
    ("float8_1e23_is_half_way_to_the_next", "float8", "1e23", "r:1e23"),
    ("float8_half_way_to_its_neighbour", "float8", "'-5.4801799643566797e17'", "r:-5.48017996435668e17"),
    ("float8_half_way_between_two_texts", "float8", "512.33331298828125", "r:512.3333129882813"),
    ("float8_nan", "float8", "'NaN'", "t:NaN"),
    ("float8_infinity", "float8", "'Infinity'", "r:inf"),
    ("float8_negative_infinity", "float8", "'-Infinity'", "r:-inf"),
    ("float8_negative_zero", "float8", "'-0'", "b:2d30"),
    ("numeric_keeps_its_scale", "numeric", "1.50", "t:1.50"),
    ("numeric_of_60_digits", "numeric", "'123456789012345678901234567890.123456789012345678901234567890'", "t:123456789012345678901234567890.123456789012345678901234567890"),
    ("numeric_tiny", "numeric", "1e-50", "t:0.00000000000000000000000000000000000000000000000001"),
    ("numeric_huge", "numeric", "1e40", "t:10000000000000000000000000000000000000000"),
    ("numeric_nan", "numeric", "'NaN'", "t:NaN"),
    ("numeric_infinity", "numeric", "'Infinity'", "t:Infinity"),
    ("numeric_negative_infinity", "numeric", "'-Infinity'", "t:-Infinity"),
    ("numeric_zero_with_scale", "numeric", "'-0.00'", "t:0.00"),
    ("decimal_10_2", "numeric(10,2)", "12345678.90", "r:12345678.9"),
    ("decimal_10_2_negative", "numeric(10,2)", "'-0.01'", "r:-0.01"),
    ("decimal_10_2_nan", "numeric(10,2)", "'NaN'", "t:NaN"),
    ("decimal_15_5", "numeric(15,5)", "9999999999.99999", "r:9999999999.99999"),
    ("decimal_16_5_is_text", "numeric(16,5)", "99999999999.99999", "t:99999999999.99999"),
    ("decimal_18_0_largest", "numeric(18,0)", "999999999999999999", "i:999999999999999999"),
    ("decimal_19_0_is_text", "numeric(19,0)", "9999999999999999999", "t:9999999999999999999"),
    ("decimal_3_minus_2", "numeric(3,-2)", "12345", "i:12300"),
    ("decimal_2_5", "numeric(2,5)", "0.00012", "r:0.00012"),
    ("decimal_30_10", "numeric(30,10)", "12345678901234567890.0123456789", "t:12345678901234567890.0123456789"),
    ("money_negative", "money", "'-1234.56'", "i:-123456"),
    ("money_smallest", "money", "'-92233720368547758.08'", "i:-9223372036854775808"),
    ("text_empty_is_not_null", "text", "''", "t:"),
    ("text_t_is_not_true", "text", "'t'", "t:t"),
    ("text_f_is_not_false", "text", "'f'", "t:f"),
    ("text_null_word", "text", "'NULL'", "t:NULL"),
    ("text_copy_null", "text", r"'\N'", r"t:\N"),
    ("text_leading_zeros", "text", "'007'", "t:007"),
    ("text_that_looks_like_a_number", "text", "'1e5'", "t:1e5"),
    ("text_crlf", "text", r"E'a\r\nb\rc\nd'", "t:a\r\nb\rc\nd"),
    ("text_tab_backslash_quote", "text", r#"E'\t\\ '' "'"#, "t:\t\\ ' \""),
    ("text_four_byte_utf8", "text", "'🌍 𝄞 é'", "t:🌍 𝄞 é"),
    ("text_combining_is_not_normalised", "text", r"U&'e\0301'", "t:e\u{301}"),
    ("text_byte_order_mark", "text", r"U&'\FEFFx'", "t:\u{feff}x"),
    ("text_trailing_space", "text", "'a '", "t:a "),
    ("text_control_characters", "text", r"E'\x01\x02\x1f\x7f'", "t:\u{1}\u{2}\u{1f}\u{7f}"),
    ("varchar_5", "varchar(5)", "'abcde'", "t:abcde"),
    ("char_5_is_padded", "char(5)", "'ab'", "t:ab   "),
    ("internal_char", "\"char\"", "'x'", "t:x"),
    ("name_type", "name", "'a name'", "t:a name"),
    ("bytea_empty", "bytea", r"'\x'", "b:"),
    ("bytea_zero_byte", "bytea", r"'\x00'", "b:00"),
    ("bytea_hex_text_is_not_bytes", "bytea", r"'\x5c7830'", "b:5c7830"),
    ("bytea_high_bytes", "bytea", r"'\x7f80fffe0d0a27'", "b:7f80fffe0d0a27"),
    ("date_common", "date", "'2024-02-01'", "t:2024-02-01"),
    ("date_bc", "date", "'0044-03-15 BC'", "t:0044-03-15 BC"),
    ("date_last", "date", "'5874897-12-31'", "t:5874897-12-31"),
    ("date_infinity", "date", "'infinity'", "t:infinity"),
    ("date_negative_infinity", "date", "'-infinity'", "t:-infinity"),
    ("time_24", "time", "'24:00:00'", "t:24:00:00"),
    ("time_microsecond", "time", "'00:00:00.000001'", "t:00:00:00.000001"),
    ("timetz_keeps_its_zone", "timetz", "'12:34:56.789+05:30'", "t:12:34:56.789+05:30"),
    ("timestamp_microseconds", "timestamp", "'2024-02-01 12:34:56.123456'", "t:2024-02-01 12:34:56.123456"),
    ("timestamp_bc", "timestamp", "'4713-01-01 00:00:00 BC'", "t:4713-01-01 00:00:00 BC"),
    ("timestamp_year_294276", "timestamp", "'294276-12-31 23:59:59.999999'", "t:294276-12-31 23:59:59.999999"),
    ("timestamp_infinity", "timestamp", "'infinity'", "t:infinity"),
    ("timestamptz_becomes_utc", "timestamptz", "'2024-02-01 12:34:56.5+02'", "t:2024-02-01 10:34:56.5+00:00"),
    ("timestamptz_bc", "timestamptz", "'0044-03-15 12:00:00+00 BC'", "t:0044-03-15 12:00:00+00:00 BC"),
    ("timestamptz_negative_infinity", "timestamptz", "'-infinity'", "t:-infinity"),
    ("timestamptz_of_a_daylight_saving_gap", "timestamptz", "'2024-03-31 02:30:00 Europe/Berlin'", "t:2024-03-31 01:30:00+00:00"),
    ("interval_mixed_signs", "interval", "'1 year 2 mons -3 days 04:05:06.789'", "t:1 year 2 mons -3 days +04:05:06.789"),
    ("interval_zero", "interval", "'0'", "t:00:00:00"),
    ("interval_long", "interval", "'178000000 years'", "t:178000000 years"),
    ("interval_negative_time", "interval", "'-0.000001 seconds'", "t:-00:00:00.000001"),
    ("uuid_upper_case", "uuid", "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'", "t:a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    ("json_as_written", "json", r#"'{"b": 1,  "a":[1, 2], "b":2}'"#, r#"t:{"b": 1,  "a":[1, 2], "b":2}"#),
    ("json_null_is_not_sql_null", "json", "'null'", "t:null"),
    ("jsonb_normalised", "jsonb", r#"'{"b": 1,  "a":[1, 2.50], "b":2}'"#, r#"t:{"a": [1, 2.50], "b": 2}"#),
    ("jsonb_large_number", "jsonb", "'12345678901234567890.12345678901234567890'", "t:12345678901234567890.12345678901234567890"),
    ("xml_content", "xml", "'<a>é</a>'", "t:<a>é</a>"),
    ("inet_host", "inet", "'192.168.0.1'", "t:192.168.0.1"),
    ("inet_with_prefix", "inet", "'192.168.0.1/24'", "t:192.168.0.1/24"),
    ("inet_v6", "inet", "'2001:DB8::1/64'", "t:2001:db8::1/64"),
    ("cidr_host_has_its_prefix", "cidr", "'10.1.2.3'", "t:10.1.2.3/32"),
    ("macaddr_plain", "macaddr", "'08-00-2B-01-02-03'", "t:08:00:2b:01:02:03"),
    ("macaddr8_plain", "macaddr8", "'08:00:2b:01:02:03:04:05'", "t:08:00:2b:01:02:03:04:05"),
    ("bit_5", "bit(5)", "B'00101'", "t:00101"),
    ("varbit_empty", "varbit", "B''", "t:"),
    ("pg_lsn_plain", "pg_lsn", "'16/B374D848'", "t:16/B374D848"),
    ("array_with_null", "int[]", "'{1,NULL,3}'", "t:{1,NULL,3}"),
    ("array_empty", "int[]", "'{}'", "t:{}"),
    ("array_of_two_dimensions", "int[]", "'{{1,2},{3,4}}'", "t:{{1,2},{3,4}}"),
    ("array_with_bounds", "int[]", "'[0:1]={1,2}'", "t:[0:1]={1,2}"),
    ("array_of_hostile_text", "text[]", r#"ARRAY['a b', '"q"', 'NULL', NULL, '', '{}', E'back\\slash']"#, r#"t:{"a b","\"q\"","NULL",NULL,"","{}","back\\slash"}"#),
    ("array_of_bytea", "bytea[]", r"ARRAY['\x00ff'::bytea]", r#"t:{"\\x00ff"}"#),
    ("array_of_timestamptz", "timestamptz[]", "ARRAY['2024-02-01 12:00+02'::timestamptz]", r#"t:{"2024-02-01 10:00:00+00"}"#),
    ("array_of_enums", "mood[]", "ARRAY['sad', 'very happy, indeed']::mood[]", r#"t:{sad,"very happy, indeed"}"#),
    ("range_of_int", "int4range", "'[1,10]'", "t:[1,11)"),
    ("range_empty", "int4range", "'empty'", "t:empty"),
    ("range_of_timestamptz", "tstzrange", "'[2024-01-01 00:00+00,)'", r#"t:["2024-01-01 00:00:00+00",)"#),
    ("range_of_numeric", "numrange", "'(1.50,2.5]'", "t:(1.50,2.5]"),
    ("range_of_a_users_type", "float_range", "'[0.1,0.30000000000000004)'", "t:[0.1,0.30000000000000004)"),
    ("multirange_of_int", "int4multirange", "'{[1,3),[5,8)}'", "t:{[1,3),[5,8)}"),
    ("multirange_of_dates", "datemultirange", "'{[2024-01-01,2024-02-01)}'", "t:{[2024-01-01,2024-02-01)}"),
    ("enum_label", "mood", "'very happy, indeed'", "t:very happy, indeed"),
    ("composite_row", "pair", "ROW(1, 'a \"b\"')::pair", r#"t:(1,"a ""b""")"#),
    ("composite_of_nulls_is_not_null", "pair", "ROW(NULL, NULL)::pair", "t:(,)"),
    ("domain_over_int", "positive", "7", "i:7"),
    ("domain_over_a_domain", "small_positive", "8", "i:8"),
    ("domain_over_decimal", "amount", "1.50", "r:1.5"),
    ("domain_over_enum", "mood_domain", "'ok'", "t:ok"),
    ("domain_over_array", "list", "'{a,b}'", "t:{a,b}"),
    ("domain_over_timestamptz", "moment", "'2024-02-01 00:00+00'", "t:2024-02-01 00:00:00+00:00"),
    ("domain_over_bytea", "bytes", r"'\xff00'", "b:ff00"),
    ("array_of_domains", "positive[]", "'{1,2}'", "t:{1,2}"),
    ("point_plain", "point", "'(1.5,-2)'", "t:(1.5,-2)"),
    ("line_plain", "line", "'{1,2,3}'", "t:{1,2,3}"),
    ("lseg_plain", "lseg", "'[(0,0),(1,1)]'", "t:[(0,0),(1,1)]"),
    ("box_plain", "box", "'(1,1),(0,0)'", "t:(1,1),(0,0)"),
    ("path_closed", "path", "'((0,0),(1,1))'", "t:((0,0),(1,1))"),
    ("path_open", "path", "'[(0,0),(1,1)]'", "t:[(0,0),(1,1)]"),
    ("polygon_plain", "polygon", "'((0,0),(1,1),(1,0))'", "t:((0,0),(1,1),(1,0))"),
    ("circle_plain", "circle", "'<(0,0),1.5>'", "t:<(0,0),1.5>"),
    ("tsvector_plain", "tsvector", "'a:1 fat:2A cat:3'", "t:'a':1 'cat':3 'fat':2A"),
    ("tsquery_plain", "tsquery", "'fat & !cat'", "t:'fat' & !'cat'"),
    ("hstore_pairs", "hstore", r#"'a=>1, b=>NULL, "c d"=>""'"#, r#"t:"a"=>"1", "b"=>NULL, "c d"=>"""#),
    ("citext_keeps_its_case", "citext", "'MiXed'", "t:MiXed"),
    ("ltree_path", "ltree", "'Top.Science'", "t:Top.Science"),
    ("regclass_name", "regclass", "'pg_catalog.pg_class'", "t:pg_class"),
    ("regtype_name", "regtype", "'int4'", "t:integer"),
    ("jsonpath_plain", "jsonpath", "'$.a[*]'", "t:$.\"a\"[*]"),
    ("tid_plain", "tid", "'(1,2)'", "t:(1,2)"),
    ("int2vector_plain", "int2vector", "'1 2 3'", "t:1 2 3"),
    ("pg_snapshot_plain", "pg_snapshot", "'10:20:10,15'", "t:10:20:10,15"),
];

/// A SQLite value as the cases write it.
pub fn held(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Integer(number) => format!("i:{number}"),
        Value::Real(number) => format!("r:{number:?}"),
        Value::Text(text) => format!("t:{text}"),
        Value::Blob(bytes) => format!("b:{}", bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
    }
}

/// Types that this server's build may lack (extensions, XML), with how to make them available.
fn unavailable(server: &Server, client: &mut postgres::Client) -> BTreeSet<&'static str> {
    let mut missing = BTreeSet::new();
    for (name, probe) in [
        ("hstore", "CREATE EXTENSION hstore SCHEMA public"),
        ("citext", "CREATE EXTENSION citext SCHEMA public"),
        ("ltree", "CREATE EXTENSION ltree SCHEMA public"),
        ("xml", "SELECT '<a/>'::xml"),
    ] {
        if let Err(error) = client.batch_execute(probe) {
            let why = error.as_db_error().map_or_else(|| error.to_string(), |error| error.message().to_owned());
            say(&format!("SKIPPED on {:?}: cases of type {name}: {why}", server.version));
            missing.insert(name);
        }
    }
    missing
}

/// What a destination writes for the value of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(any(feature = "mysql", feature = "sqlserver")), allow(dead_code))]
pub enum Written {
    /// The value itself.
    Same,
    /// Another one, in PostgreSQL's text.
    Text(&'static str),
    /// NULL, which no key can be.
    Null,
    /// The case is left out.
    Left,
}

impl Written {
    /// The rows of the source as the destination has them.
    fn rows(self, here: &[TextRow], table: &Table) -> Vec<TextRow> {
        let instead = match self {
            Self::Same => return here.to_vec(),
            Self::Text(text) => Some(text.to_owned()),
            Self::Null | Self::Left => None,
        };
        let value = table.columns.iter().position(|(name, _)| name == "v").unwrap();
        let mut rows = here.to_vec();
        for cell in rows.iter_mut().map(|row| &mut row[value]).filter(|cell| cell.is_some()) {
            cell.clone_from(&instead);
        }
        rows.sort_unstable();
        rows
    }

    /// Whether it can be the key.
    fn is_key(self) -> bool {
        self != Self::Null
    }
}

/// Whatever `set` makes the pipeline write to: every value comes back as PostgreSQL prints it, or
/// what `written` says of the case; SQLite holds what the table says.
pub fn everything_arrives(
    server: &'static Server,
    written: &dyn Fn(&str) -> Written,
    set: &dyn Fn(&mut Pipeline),
    prepare: impl Fn(&Database),
) {
    let mut database = Database::new(server);
    prepare(&database);
    database.create_slot();
    let mut client = pinned(&database);
    client.batch_execute(SETUP).unwrap();
    let missing = unavailable(server, &mut client);
    let mut pipeline = Pipeline::new(&database);
    set(&mut pipeline);
    let target = pipeline.target().clone();
    let is_there = |(name, kind, ..): &&TypeCase| !missing.contains(kind) && written(name) != Written::Left;
    let cases: Vec<_> = CASES.iter().filter(is_there).collect();
    let mut failures = Vec::new();
    let mut keys = BTreeSet::new();
    for (name, kind, literal, _) in &cases {
        let sql = format!(
            "CREATE TABLE p_{name} (id int PRIMARY KEY, v {kind}); CREATE TABLE f_{name} (v {kind}, n int);
             ALTER TABLE f_{name} REPLICA IDENTITY FULL;
             INSERT INTO p_{name} VALUES (1, {literal}), (2, NULL), (3, {literal});
             UPDATE p_{name} SET v = {literal} WHERE id = 2; UPDATE p_{name} SET v = NULL WHERE id = 3;
             INSERT INTO f_{name} VALUES ({literal}, 1), ({literal}, 1), (NULL, 1), (NULL, 1);
             DELETE FROM f_{name} WHERE ctid = (SELECT min(ctid) FROM f_{name} WHERE v IS NOT NULL);
             DELETE FROM f_{name} WHERE ctid = (SELECT max(ctid) FROM f_{name});
             UPDATE f_{name} SET n = 2"
        );
        // A row of NULLs is not distinct from NULL to IS NOT NULL.
        let sql = if *name == "composite_of_nulls_is_not_null" { sql.replace("WHERE v IS NOT NULL", "") } else { sql };
        if let Err(error) = client.batch_execute(&sql) {
            failures.push(format!("{name}: {error:?}"));
            continue;
        }
        if !written(name).is_key() {
            continue;
        }
        let key = format!(
            "CREATE TABLE k_{name} (v {kind} PRIMARY KEY, n int); INSERT INTO k_{name} VALUES ({literal}, 1);
             UPDATE k_{name} SET n = 2"
        );
        match client.batch_execute(&key) {
            Ok(()) => {
                keys.insert(*name);
            }
            // Types without an order are no keys.
            Err(error) if error.code().is_some_and(|code| ["42704", "42883"].contains(&code.code())) => {}
            Err(error) => failures.push(format!("{name}: as key: {error:?}")),
        }
    }
    // Hundreds of tables are made, which takes a server a while.
    pipeline.catch_up_within(5 * PATIENCE);
    // The session was idle meanwhile, and its database may end such ones.
    let mut client = pinned(&database);
    let tables = published(&mut client, &database.name);
    let connection = pipeline.open();
    let values = |connection: &Connection, table: &str| -> Result<Vec<String>, String> {
        let column = if table.starts_with("p_") { "id" } else { "n" };
        let sql = format!("SELECT v FROM {} ORDER BY {column}, rowid", quote(table));
        let mut statement = connection
            .prepare(&sql)
            .or_else(|_| connection.prepare(&sql.replace(", rowid", "")))
            .map_err(|error| error.to_string())?;
        let rows = statement.query_map([], |row| row.get::<_, Value>(0)).map_err(|error| error.to_string())?;
        rows.map(|value| value.map(|value| held(&value)).map_err(|error| error.to_string())).collect()
    };
    for (name, _, _, expected) in &cases {
        let null = "NULL".to_owned();
        let expected = (*expected).to_owned();
        let mut check = |table: String, wanted: Vec<String>, sort: bool| {
            let mut wanted = wanted;
            let got = connection.as_ref().map(|connection| values(connection, &table));
            let got = got.map(|got| {
                got.map(|mut got| {
                    if sort {
                        got.sort_unstable();
                        wanted.sort_unstable();
                    }
                    got
                })
            });
            if let Some(got) = got.filter(|got| got.as_ref() != Ok(&wanted)) {
                failures.push(format!("{name}: {table}\n    wanted {wanted:?}\n    got    {got:?}"));
            }
            let table: &Table = tables.iter().find(|candidate| candidate.name == table).unwrap();
            let there = target.stored(table);
            let source = source_rows(&mut client, table);
            let here = written(name).rows(&source, table);
            if written(name) != Written::Same && here == source {
                failures.push(format!("{name}: it is not otherwise any more"));
            }
            if there.as_ref() != Ok(&here) {
                failures.push(format!("{name}: {} read back\n    wanted {here:?}\n    got    {there:?}", table.name));
            }
        };
        check(format!("p_{name}"), vec![expected.clone(), expected.clone(), null.clone()], false);
        check(format!("f_{name}"), vec![expected.clone(), null], true);
        if keys.contains(name) {
            check(format!("k_{name}"), vec![expected], false);
        }
    }
    report(cases.iter().map(|case| case.0), failures);
}

/// A case whose value the column's type has not, and what `clamp` writes in its place: `None` where
/// nothing is near.
#[cfg(any(feature = "mysql", feature = "sqlserver"))]
pub type Clamped = (&'static str, Option<&'static str>);

/// What databases have no place for whose dates begin with the year 1 and whose floats are finite.
#[cfg(any(feature = "mysql", feature = "sqlserver"))]
pub const CLAMPED: &[Clamped] = &[
    ("float4_nan", None),
    ("float4_infinity", Some("3.4028235e+38")),
    ("float8_nan", None),
    ("float8_infinity", Some("1.7976931348623157e+308")),
    ("float8_negative_infinity", Some("-1.7976931348623157e+308")),
    ("decimal_10_2_nan", None),
    ("date_bc", Some("0001-01-01")),
    ("date_last", Some("9999-12-31")),
    ("date_infinity", Some("9999-12-31")),
    ("date_negative_infinity", Some("0001-01-01")),
    ("timestamp_bc", Some("0001-01-01 00:00:00")),
    ("timestamp_year_294276", Some("9999-12-31 23:59:59.999999")),
    ("timestamp_infinity", Some("9999-12-31 23:59:59.999999")),
    ("timestamptz_bc", Some("0001-01-01 00:00:00+00")),
    ("timestamptz_negative_infinity", Some("0001-01-01 00:00:00+00")),
];

/// The same under the policies `clamp` and `null`. `always` is what the server itself makes of
/// values, under every policy.
#[cfg(any(feature = "mysql", feature = "sqlserver"))]
pub fn everything_arrives_by_policy(
    server: &'static Server,
    place: &'static impl crate::target::Place,
    clamped: &[Clamped],
    always: &[Clamped],
) {
    let set = |policy: &'static str| {
        move |pipeline: &mut Pipeline| {
            pipeline.write_to(place).set("PG2ANY_UNREPRESENTABLE", policy);
        }
    };
    for (name, _) in clamped.iter().chain(always) {
        assert!(CASES.iter().any(|case| case.0 == *name), "there is no case {name}");
    }
    let written = |name: &str| match clamped.iter().chain(always).find(|(other, _)| *other == name) {
        None => Written::Same,
        Some((_, None)) => Written::Left,
        Some((_, Some(text))) => Written::Text(text),
    };
    everything_arrives(server, &written, &set("clamp"), |_| {});
    let is_nulled = |name: &str| clamped.iter().any(|(other, _)| *other == name);
    let nulled = |name: &str| if is_nulled(name) { Written::Null } else { Written::Left };
    everything_arrives(server, &nulled, &set("null"), |_| {});
}

on_each_server! {
    fn every_type_arrives_as_the_table_says(server) {
        everything_arrives(server, &|_| Written::Same, &|_| {}, |_| {});
    }

    fn every_type_arrives_from_a_database_with_hostile_defaults(server) {
        everything_arrives(server, &|_| Written::Same, &|_| {}, |database| {
            for setting in HOSTILE_DEFAULTS {
                database.default(setting);
            }
        });
    }

    fn every_type_arrives_command_by_command(server) {
        let set = |pipeline: &mut Pipeline| {
            pipeline.set("PG2ANY_SPLIT_LIMIT", "1");
        };
        everything_arrives(server, &|_| Written::Same, &set, |_| {});
    }
}
