//! Names: what tables and columns are called at the destination.

use super::{Case, run};
use crate::compare::quote;
use crate::delivery::arrange;

#[rustfmt::skip]
pub const CASES: &[Case] = &[
    Case { name: "quotes_in_names", stages: &[
        r#"CREATE TABLE "a ""quoted"" 'table'" (id int PRIMARY KEY, "col ""x""" text); INSERT INTO "a ""quoted"" 'table'" VALUES (1, 'v'); UPDATE "a ""quoted"" 'table'" SET "col ""x""" = 'w'"#,
    ], expect: &[(r#"SELECT "col ""x""" FROM "a ""quoted"" 'table'""#, &["w"])] },
    Case { name: "semicolon_and_comment_in_names", stages: &[
        r#"CREATE TABLE "x; DROP TABLE y; --" (id int PRIMARY KEY, "/* c */" int); INSERT INTO "x; DROP TABLE y; --" VALUES (1, 2)"#,
    ], expect: &[(r#"SELECT "/* c */" FROM "x; DROP TABLE y; --""#, &["2"])] },
    Case { name: "spaces_and_line_breaks_in_names", stages: &[
        "CREATE TABLE \"two words\nand a line\" (id int PRIMARY KEY, \" \" int); INSERT INTO \"two words\nand a line\" VALUES (1, 2)",
    ], expect: &[("SELECT \" \" FROM \"two words\nand a line\"", &["2"])] },
    Case { name: "emoji_names", stages: &[
        r#"CREATE TABLE "🦀" (id int PRIMARY KEY, "naïve ☕" text); INSERT INTO "🦀" VALUES (1, '☕')"#,
    ], expect: &[(r#"SELECT "naïve ☕" FROM "🦀""#, &["☕"])] },
    Case { name: "emoji_names_beside_what_they_become", stages: &[
        r#"CREATE TABLE "🌍" (id int PRIMARY KEY, "🦀" int, "~{1f980}" int); CREATE TABLE "~{1f30d}" (id int PRIMARY KEY); INSERT INTO "🌍" VALUES (1, 2, 3); INSERT INTO "~{1f30d}" VALUES (9)"#,
    ], expect: &[(r#"SELECT "🦀", "~{1f980}" FROM "🌍""#, &["2|3"]), (r#"SELECT id FROM "~~{1f30d}""#, &["9"])] },
    Case { name: "spaces_at_the_end_of_names", stages: &[
        r#"CREATE TABLE "ends " (id int PRIMARY KEY, "v " int, v int); INSERT INTO "ends " VALUES (1, 2, 3)"#,
    ], expect: &[(r#"SELECT "v ", v FROM "ends ""#, &["2|3"])] },
    Case { name: "names_of_63_bytes", stages: &[
        "CREATE TABLE t23456789012345678901234567890123456789012345678901234567890_63 (id int PRIMARY KEY, c23456789012345678901234567890123456789012345678901234567890_63 int); INSERT INTO t23456789012345678901234567890123456789012345678901234567890_63 VALUES (1, 2)",
    ], expect: &[("SELECT c23456789012345678901234567890123456789012345678901234567890_63 FROM t23456789012345678901234567890123456789012345678901234567890_63", &["2"])] },
    Case { name: "reserved_words_as_names", stages: &[
        r#"CREATE TABLE "select" ("from" int PRIMARY KEY, "where" text, "order" int, "group" int, "table" int); INSERT INTO "select" VALUES (1, 'x', 2, 3, 4); UPDATE "select" SET "where" = 'y'; "#,
    ], expect: &[(r#"SELECT "from", "where", "order" FROM "select""#, &["1|y|2"])] },
    Case { name: "mixed_case_names_are_kept", stages: &[
        r#"CREATE TABLE "MixedCase" ("Id" int PRIMARY KEY, "userName" text); INSERT INTO "MixedCase" VALUES (1, 'x')"#,
    ], expect: &[(r#"SELECT name FROM sqlite_master WHERE type = 'table' AND lower(name) = 'mixedcase'"#, &["MixedCase"]), (r#"SELECT name FROM pragma_table_info('MixedCase')"#, &["Id", "userName"])] },
    Case { name: "tables_that_differ_only_in_case", stages: &[
        r#"CREATE TABLE twin (id int PRIMARY KEY); CREATE TABLE "TWIN" (id int PRIMARY KEY); INSERT INTO twin VALUES (1)"#,
        r#"INSERT INTO "TWIN" VALUES (2)"#,
    ], expect: &[("SELECT * FROM twin", &["1"]), (r#"SELECT * FROM "TWIN~2""#, &["2"])] },
    Case { name: "columns_that_differ_only_in_case", stages: &[
        r#"CREATE TABLE ccase (id int PRIMARY KEY, "v" int, "V" int); INSERT INTO ccase VALUES (1, 2, 3); UPDATE ccase SET "V" = 4"#,
    ], expect: &[(r#"SELECT id, v, "V~2" FROM ccase"#, &["1|2|4"])] },
    Case { name: "rowid_as_column_name", stages: &[
        r#"CREATE TABLE hidden (rowid text, oid_ text, _rowid_ int); ALTER TABLE hidden REPLICA IDENTITY FULL; INSERT INTO hidden VALUES ('a', 'b', 1), ('a', 'b', 1); DELETE FROM hidden WHERE ctid = (SELECT min(ctid) FROM hidden); UPDATE hidden SET rowid = 'c'"#,
    ], expect: &[(r#"SELECT "rowid", oid_, "_rowid_" FROM hidden"#, &["c|b|1"])] },
    Case { name: "sqlite_prefix", stages: &[
        "CREATE TABLE sqlite_stat1 (id int PRIMARY KEY); INSERT INTO sqlite_stat1 VALUES (1)",
    ], expect: &[(r#"SELECT * FROM "~sqlite_stat1""#, &["1"])] },
    Case { name: "two_schemas_with_the_same_table", stages: &[
        "CREATE SCHEMA one; CREATE SCHEMA two; CREATE TABLE one.same_name (id int PRIMARY KEY); CREATE TABLE two.same_name (id int PRIMARY KEY); CREATE TABLE same_name (id int PRIMARY KEY); INSERT INTO one.same_name VALUES (1); INSERT INTO two.same_name VALUES (2); INSERT INTO same_name VALUES (0)",
    ], expect: &[(r#"SELECT * FROM "one.same_name""#, &["1"]), (r#"SELECT * FROM "two.same_name""#, &["2"]), ("SELECT * FROM same_name", &["0"])] },
    Case { name: "a_dot_in_a_name_is_no_schema", stages: &[
        r#"CREATE SCHEMA dotted; CREATE TABLE dotted.t (id int PRIMARY KEY); CREATE TABLE "dotted.t" (id int PRIMARY KEY); INSERT INTO dotted.t VALUES (1); INSERT INTO "dotted.t" VALUES (2)"#,
    ], expect: &[(r#"SELECT * FROM "dotted.t""#, &["1"]), (r#"SELECT * FROM "dotted~.t""#, &["2"])] },
    Case { name: "a_tilde_in_a_name", stages: &[
        r#"CREATE TABLE "a~b" (id int PRIMARY KEY, "c~d" int); INSERT INTO "a~b" VALUES (1, 2)"#,
    ], expect: &[(r#"SELECT id FROM "a~~b""#, &["1"])] },
    Case { name: "a_column_named_like_a_parameter", stages: &[
        r#"CREATE TABLE params ("?1" int PRIMARY KEY, ":v" int, "$x" int, "@y" int); INSERT INTO params VALUES (1, 2, 3, 4); UPDATE params SET "$x" = 30"#,
    ], expect: &[(r#"SELECT "?1", ":v", "$x", "@y" FROM params"#, &["1|2|30|4"])] },
    Case { name: "a_schema_with_hostile_name", stages: &[
        r#"CREATE SCHEMA "Bad ""Schema"""; CREATE TABLE "Bad ""Schema"""."T" (id int PRIMARY KEY); INSERT INTO "Bad ""Schema"""."T" VALUES (1)"#,
    ], expect: &[(r#"SELECT * FROM "Bad ""Schema"".T""#, &["1"])] },
];

on_each_server! {
    fn names_are_kept_and_never_merged(server) {
        run(server, CASES, &[], true);
    }

    fn a_mapped_schema_goes_by_its_mapped_name(server) {
        let (mut database, mut pipeline) = arrange(server, "CREATE SCHEMA sales; CREATE TABLE sales.t (id int PRIMARY KEY); CREATE TABLE t (id int PRIMARY KEY)");
        pipeline.set("CDC_SCHEMA_MAPPING", "public:cdc_db,sales:sales_db");
        database.execute("INSERT INTO sales.t VALUES (1); INSERT INTO t VALUES (2)");
        pipeline.catch_up();
        assert_eq!(pipeline.lines(&format!("SELECT * FROM {}", quote("sales_db.t"))), ["1"]);
        assert_eq!(pipeline.lines(&format!("SELECT * FROM {}", quote("cdc_db.t"))), ["2"]);
    }
}
