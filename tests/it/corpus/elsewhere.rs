//! The corpus into MariaDB and MySQL: the same cases, and of each the same answers, but for what is
//! listed here.

use super::Otherwise::{Answers, Stops};
use super::types::Clamped;
use super::{COMMAND_BY_COMMAND, Otherwise, asked_of, filters, identities, names, operations, run_into, schema, types};

#[rustfmt::skip]
const OPERATIONS: &[(&str, Otherwise)] = &[
    ("nulls_and_back", Answers(&[("SELECT id, a, b, c IS NULL, length(c) FROM nulls ORDER BY id", &["1|1||0|0", "2|NULL|NULL|1|NULL"])])),
];

#[rustfmt::skip]
const GENERATED: &[(&str, Otherwise)] = &[
    ("a_generated_column_under_full_identity", Answers(&[("SELECT * FROM gf ORDER BY a", &["1|0.3333333333333333", "3|1"])])),
];

#[rustfmt::skip]
const IDENTITIES: &[(&str, Otherwise)] = &[
    ("float_as_key", Stops("column \"id\" cannot take the value \"NaN\"", &[("SELECT v FROM kfloat ORDER BY v", &["10", "20", "30", "40"])])),
    ("full_identity_with_a_key", Stops("column \"v\" cannot take the value \"NaN\"", &[("SELECT id FROM fk ORDER BY id", &["12", "13"])])),
    ("toast_value_that_is_the_identity", Stops("narrower than the source's", &[])),
    // MariaDB has no `-0`.
    ("zero_key_that_becomes_negative_zero", Answers(&[("SELECT id = 0, v FROM kzero", &["1|2"])])),
];

#[rustfmt::skip]
const NAMES: &[(&str, Otherwise)] = &[
    ("spaces_and_line_breaks_in_names", Answers(&[("SELECT \" ~\" FROM \"two words\nand a line\"", &["2"])])),
    ("spaces_at_the_end_of_names", Answers(&[(r#"SELECT "v ~", v FROM "ends ~""#, &["2|3"])])),
    ("emoji_names", Answers(&[(r#"SELECT "naïve ☕" FROM "~{1f980}""#, &["☕"])])),
    ("emoji_names_beside_what_they_become", Answers(&[(r#"SELECT "~{1f980}~2", "~{1f980}" FROM "~{1f30d}""#, &["2|3"]), (r#"SELECT id FROM "~~{1f30d}""#, &["9"])])),
    ("tables_that_differ_only_in_case", Answers(&[("SELECT * FROM twin", &["1"]), (r#"SELECT * FROM "TWIN""#, &["2"])])),
    ("sqlite_prefix", Answers(&[("SELECT * FROM sqlite_stat1", &["1"])])),
];

#[rustfmt::skip]
const SCHEMA: &[(&str, Otherwise)] = &[
    ("column_added_with_a_numeric_default", Answers(&[("SELECT id, v FROM cadn ORDER BY id", &["1|1.50", "2|1.50"])])),
    ("column_added_with_a_timestamptz_default", Answers(&[("SELECT * FROM cadz ORDER BY id", &["1|2024-02-01 10:00:00.000000", "2|2024-02-01 10:00:00.000000"])])),
    ("integers_widened_also_in_the_key", Answers(&[("SELECT id, v, w FROM iw ORDER BY id", &["1|2147483647|a", "2|NULL|B", "9223372036854775807|0|d"])])),
    ("integer_became_numeric_and_text", Answers(&[("SELECT n, d, t FROM int_to ORDER BY id", &["-7|7.00|7", "1.50|1.50|x"])])),
    ("numeric_precision_and_scale_grown", Stops("cannot take the value \"NaN\"", &[("SELECT p, s, b FROM ng ORDER BY id", &["1.50|1.5000|1.5000", "0.00|0.0000|0.0000", "2.00|2.0000|2.0000", "2.00|2.0001|2.0001"])])),
    ("real_became_double_precision", Stops("cannot take the value \"NaN\"", &[("SELECT v + 0 FROM fw ORDER BY id", &["0.10000000149011612", "0", "0", "-1.5", "NULL", "0.1"])])),
    ("types_changed_without_a_rewrite", Stops("cannot take the value \"0044-03-15 12:00:00 BC\"", &[("SELECT * FROM tw ORDER BY id", &[
        "1|1044-03-15 12:00:00.000000|2024-02-01 10:00:00.000000|10.0.0.1|4294967295|01", "2|2999-12-31 00:00:00.000000|1000-01-01 00:00:00.000000|10.0.0.0/8|1|",
        "3|NULL|NULL|10.0.0.1|4294967295|010101",
    ])])),
];

/// What MariaDB has not, under every policy.
const OF_MARIADB: &[Clamped] = &[("float4_negative_zero", Some("0")), ("float8_negative_zero", Some("0"))];

/// What SQLite is asked, in the words of MySQL.
fn asked(sql: &str) -> String {
    let tables = "(SELECT table_name AS name, 'table' AS type FROM information_schema.tables WHERE table_schema = database()) AS m";
    let columns = "(SELECT column_name AS name, column_key = 'PRI' AS pk, ordinal_position AS cid FROM information_schema.columns \
                   WHERE table_schema = database() AND table_name = '{table}' ORDER BY ordinal_position LIMIT 100) AS c";
    asked_of(sql, tables, columns)
}

on_each_mysql! {
    fn operations_arrive(server, mysql) {
        run_into(server, (mysql, &asked), operations::CASES, OPERATIONS, &[], true);
    }

    fn a_publication_that_shows_a_part_is_followed(server, mysql) {
        run_into(server, (mysql, &asked), filters::CASES, &[], &[], false);
    }

    fn a_publication_via_the_partition_root_is_followed(server, mysql) {
        run_into(server, (mysql, &asked), filters::ROOT, &[], &[], false);
    }

    fn generated_columns_are_followed_where_postgresql_publishes_them(server, mysql) {
        if server.version == Version::V18 {
            run_into(server, (mysql, &asked), filters::GENERATED, GENERATED, &[], false);
        }
    }

    fn the_right_row_is_changed(server, mysql) {
        run_into(server, (mysql, &asked), identities::CASES, IDENTITIES, &[], true);
        run_into(server, (mysql, &asked), identities::CASES, IDENTITIES, COMMAND_BY_COMMAND, true);
    }

    fn names_are_kept_and_never_merged(server, mysql) {
        run_into(server, (mysql, &asked), names::CASES, NAMES, &[], true);
    }

    fn changes_that_can_be_followed_are_followed(server, mysql) {
        run_into(server, (mysql, &asked), schema::CASES, SCHEMA, &[], true);
        run_into(server, (mysql, &asked), schema::CASES, SCHEMA, COMMAND_BY_COMMAND, true);
    }

    fn every_type_arrives_or_is_what_the_policy_makes_of_it(server, mysql) {
        let of_kind = if mysql.kind == Kind::MariaDb { OF_MARIADB } else { &[] };
        types::everything_arrives_by_policy(server, mysql, types::CLAMPED, of_kind);
    }
}
