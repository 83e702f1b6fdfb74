//! The corpus into SQL Server: the same cases, and of each the same answers, but for what is listed
//! here.

use super::Otherwise::{self, Answers, Stops};
use super::{COMMAND_BY_COMMAND, Case, asked_of, filters, identities, names, operations, run_into, schema, types};
use crate::server::{Server, say};
use crate::sqlserver_server::SqlServer;

#[rustfmt::skip]
const OPERATIONS: &[(&str, Otherwise)] = &[
    ("nulls_and_back", Answers(&[("SELECT id, a, b, DATALENGTH(c) FROM nulls ORDER BY id", &["1|1||0", "2|NULL|NULL|NULL"])])),
    ("one_megabyte_of_bytes", Answers(&[("SELECT id, DATALENGTH(v), SUBSTRING(v, 1048573, 4) FROM bigb", &["1|1048576|\\x00ff0a0d"])])),
    ("numeric_of_the_largest_size", Answers(&[("SELECT LEN(v), SUBSTRING(v, 1, 3), RIGHT(v, 3), CHARINDEX('.', v) FROM bign", &["147457|-99|999|131074"])])),
    ("every_byte_of_a_bytea", Answers(&[("SELECT DATALENGTH(v), SUBSTRING(v, 1, 4), SUBSTRING(v, 253, 4) FROM allbytes", &["256|\\x00010203|\\xfcfdfeff"])])),
];

#[rustfmt::skip]
const GENERATED: &[(&str, Otherwise)] = &[
    ("a_generated_column_under_full_identity", Answers(&[("SELECT * FROM gf ORDER BY a", &["1|0.3333333333333333", "3|1"])])),
];

#[rustfmt::skip]
const IDENTITIES: &[(&str, Otherwise)] = &[
    ("keys_that_differ_in_trailing_space_stay_apart", Stops("INSERT failed; table kspace; key id=", &[])),
    ("float_as_key", Stops("cannot take the value", &[("SELECT v FROM kfloat ORDER BY v", &["10", "20", "30", "40"])])),
    // Zeros at the end of a key do not count either.
    ("bytea_as_key", Stops("INSERT failed; table kbytes; key id=", &[])),
    ("full_identity_with_a_key", Stops("cannot take the value", &[("SELECT id FROM fk ORDER BY id", &["12", "13"])])),
    ("toast_value_that_is_the_identity", Stops("table itoast", &[])),
    ("zero_key_that_becomes_negative_zero", Answers(&[("SELECT * FROM kzero", &["-0|2"])])),
];

#[rustfmt::skip]
const NAMES: &[(&str, Otherwise)] = &[
    ("spaces_and_line_breaks_in_names", Answers(&[("SELECT \" ~\" FROM \"two words\nand a line\"", &["2"])])),
    ("spaces_at_the_end_of_names", Answers(&[(r#"SELECT "v ~", v FROM "ends ~""#, &["2|3"])])),
    ("sqlite_prefix", Answers(&[("SELECT * FROM sqlite_stat1", &["1"])])),
    ("two_schemas_with_the_same_table", Answers(&[("SELECT * FROM one.same_name", &["1"]), ("SELECT * FROM two.same_name", &["2"]), ("SELECT * FROM same_name", &["0"])])),
    ("a_dot_in_a_name_is_no_schema", Answers(&[("SELECT * FROM dotted.t", &["1"]), (r#"SELECT * FROM "dotted.t""#, &["2"])])),
    ("a_tilde_in_a_name", Answers(&[(r#"SELECT id FROM "a~b""#, &["1"])])),
    ("a_schema_with_hostile_name", Answers(&[(r#"SELECT * FROM "Bad ""Schema"""."T""#, &["1"])])),
];

#[rustfmt::skip]
const SCHEMA: &[(&str, Otherwise)] = &[
    ("column_added_with_a_bytea_default", Answers(&[("SELECT * FROM cadb ORDER BY id", &["1|\\x00ff", "2|\\x00ff"])])),
    ("column_added_with_a_numeric_default", Answers(&[("SELECT id, v FROM cadn ORDER BY id", &["1|1.50", "2|1.50"])])),
    ("column_added_with_a_timestamptz_default", Answers(&[("SELECT * FROM cadz ORDER BY id", &["1|2024-02-01 10:00:00+00", "2|2024-02-01 10:00:00+00"])])),
    ("integers_widened_also_in_the_key", Answers(&[("SELECT id, v, w FROM iw ORDER BY id", &["1|2147483647|a", "2|NULL|B", "9223372036854775807|0|d"])])),
    ("integer_became_numeric_and_text", Answers(&[("SELECT n, d, t FROM int_to ORDER BY id", &["-7|7.00|7", "1.50|1.50|x"])])),
    ("numeric_precision_and_scale_grown", Stops("cannot take the value \"NaN\"", &[("SELECT p, s, b FROM ng ORDER BY id", &["1.50|1.5000|1.5000", "0.00|0.0000|0.0000", "2.00|2.0000|2.0000", "2.00|2.0001|2.0001"])])),
    ("real_became_double_precision", Stops("cannot take the value \"NaN\"", &[("SELECT v FROM fw ORDER BY id", &["0.10000000149011612", "0", "-0", "-1.5", "NULL", "0.1"])])),
    ("types_changed_without_a_rewrite", Stops("cannot take the value \"0044-03-15 12:00:00 BC\"", &[(r#"SELECT id, "at", back, net, o, bits FROM tw ORDER BY id"#, &[
        "1|1044-03-15 12:00:00+00|2024-02-01 10:00:00|10.0.0.1|4294967295|01", "2|2999-12-31 00:00:00+00|1000-01-01 00:00:00|10.0.0.0/8|1|",
        "3|NULL|NULL|10.0.0.1|4294967295|010101",
    ])])),
];

/// What SQLite is asked, in the words of SQL Server.
fn asked(sql: &str) -> String {
    let tables = "(SELECT name, 'table' AS type FROM sys.tables) AS m";
    let columns = "(SELECT TOP 100 c.name, c.column_id AS cid, COALESCE((SELECT k.key_ordinal FROM sys.indexes i JOIN sys.index_columns k \
                   ON k.object_id = i.object_id AND k.index_id = i.index_id WHERE i.object_id = c.object_id AND i.is_primary_key = 1 \
                   AND k.column_id = c.column_id), 0) AS pk FROM sys.columns c WHERE c.object_id = OBJECT_ID('{table}')) AS c";
    asked_of(sql, tables, columns).replace("length(", "LEN(").replace(" || ", " + ")
}

/// Cases that Babelfish fails at, each for what SQL Server does otherwise.
const NOT_AT_BABELFISH: &[&str] = &[
    // It leaves a column NOT NULL that `ALTER COLUMN` names without `NOT NULL`.
    "full_identity_after_the_key_was_dropped",
    // Its catalogue has `varchar` names, which arrive with `?` for what the code page has not.
    "emoji_names",
    "emoji_names_beside_what_they_become",
    // And they are in lower case there.
    "mixed_case_names_are_kept",
    // It has neither `COLLATE` nor `NOT NULL` in `ALTER COLUMN`.
    "char_widened_is_padded",
    "primary_key_added_where_there_was_full",
    "primary_key_moved_to_another_column",
];

fn into_sqlserver(
    server: &'static Server,
    sqlserver: &'static SqlServer,
    cases: &[Case],
    otherwise: &[(&'static str, Otherwise)],
    settings: &[(&str, &str)],
    all_tables: bool,
) {
    let is_left_out = |name: &str| sqlserver.is_babelfish() && NOT_AT_BABELFISH.contains(&name);
    let (left, cases): (Vec<Case>, Vec<Case>) = cases.iter().partition(|case| is_left_out(case.name));
    for case in left {
        say(&format!("SKIPPED at Babelfish: {}", case.name));
    }
    run_into(server, (sqlserver, &asked), &cases, otherwise, settings, all_tables);
}

on_sqlserver! {
    fn operations_arrive(server, sqlserver) {
        into_sqlserver(server, sqlserver, operations::CASES, OPERATIONS, &[], true);
    }

    fn a_publication_that_shows_a_part_is_followed(server, sqlserver) {
        into_sqlserver(server, sqlserver, filters::CASES, &[], &[], false);
    }

    fn a_publication_via_the_partition_root_is_followed(server, sqlserver) {
        into_sqlserver(server, sqlserver, filters::ROOT, &[], &[], false);
    }

    fn generated_columns_are_followed_where_postgresql_publishes_them(server, sqlserver) {
        into_sqlserver(server, sqlserver, filters::GENERATED, GENERATED, &[], false);
    }

    fn the_right_row_is_changed(server, sqlserver) {
        into_sqlserver(server, sqlserver, identities::CASES, IDENTITIES, &[], true);
        into_sqlserver(server, sqlserver, identities::CASES, IDENTITIES, COMMAND_BY_COMMAND, true);
    }

    fn names_are_kept_and_never_merged(server, sqlserver) {
        into_sqlserver(server, sqlserver, names::CASES, NAMES, &[], true);
    }

    fn changes_that_can_be_followed_are_followed(server, sqlserver) {
        into_sqlserver(server, sqlserver, schema::CASES, SCHEMA, &[], true);
        into_sqlserver(server, sqlserver, schema::CASES, SCHEMA, COMMAND_BY_COMMAND, true);
    }

    fn every_type_arrives_or_is_what_the_policy_makes_of_it(server, sqlserver) {
        types::everything_arrives_by_policy(server, sqlserver, &[types::CLAMPED, &[("time_24", Some("23:59:59.999999"))]].concat(), &[]);
    }
}
