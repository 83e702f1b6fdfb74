//! Values: what is stored, and the way back to PostgreSQL's text.

use super::*;
use crate::change::built::{insert, update_from};
use crate::destination::sqlite::postgres_text;
use crate::destination::value::Family;

/// OID, modifier, PostgreSQL's text, `typeof` of what is stored.
const CASES: &[(u32, i32, &str, &str)] = &[
    (16, -1, "t", "integer"),
    (16, -1, "f", "integer"),
    (21, -1, "-32768", "integer"),
    (23, -1, "2147483647", "integer"),
    (20, -1, "-9223372036854775808", "integer"),
    (20, -1, "9223372036854775807", "integer"),
    (26, -1, "4294967295", "integer"),
    (5069, -1, "18446744073709551615", "text"),
    (700, -1, "0.1", "real"),
    (700, -1, "3.4028235e+38", "real"),
    (700, -1, "1e-45", "real"),
    (700, -1, "1.6777216e+07", "real"),
    (700, -1, "NaN", "text"),
    (701, -1, "0.30000000000000004", "real"),
    (701, -1, "5e-324", "real"),
    (701, -1, "1.7976931348623157e+308", "real"),
    (701, -1, "Infinity", "real"),
    (701, -1, "-Infinity", "real"),
    (701, -1, "NaN", "text"),
    (701, -1, "-0", "blob"),
    (701, -1, "0", "real"),
    (701, -1, "123456789012345", "real"),
    (701, -1, "1e+15", "real"),
    (1700, -1, "1.50", "text"),
    (1700, -1, "NaN", "text"),
    (1700, -1, "-Infinity", "text"),
    (1700, -1, "123456789012345678901234567890.123456789012345678901234567890", "text"),
    (1700, (10 << 16 | 2) + 4, "12345678.90", "real"),
    (1700, (10 << 16 | 2) + 4, "-0.01", "real"),
    (1700, (10 << 16 | 2) + 4, "NaN", "text"),
    (1700, (15 << 16 | 5) + 4, "9999999999.99999", "real"),
    (1700, (3 << 16 | 5) + 4, "0.00999", "real"),
    (1700, (16 << 16 | 2) + 4, "12345678901234.56", "text"),
    (1700, (18 << 16) + 4, "-999999999999999999", "integer"),
    (1700, (18 << 16) + 4, "NaN", "text"),
    (1700, (19 << 16) + 4, "9999999999999999999", "text"),
    (1700, (3 << 16 | (-2 & 0x7FF)) + 4, "99900", "integer"),
    (790, -1, "-$92,233,720,368,547,758.08", "integer"),
    (790, -1, "$92,233,720,368,547,758.07", "integer"),
    (790, -1, "$0.05", "integer"),
    (790, -1, "-$1,234.56", "integer"),
    (25, -1, "", "text"),
    (25, -1, "t", "text"),
    (25, -1, "007", "text"),
    (25, -1, "1e5", "text"),
    (25, -1, "a\r\nb\\ 🦀 ' \"", "text"),
    (1042, 9, "ab   ", "text"),
    (18, -1, "", "text"),
    (17, -1, "\\x", "blob"),
    (17, -1, "\\x00ff27225c0a0d", "blob"),
    (1082, -1, "0044-03-15 BC", "text"),
    (1082, -1, "5874897-12-31", "text"),
    (1082, -1, "-infinity", "text"),
    (1083, -1, "24:00:00", "text"),
    (1083, -1, "00:00:00.000001", "text"),
    (1266, -1, "24:00:00-15:59:59", "text"),
    (1114, -1, "2024-02-29 23:59:59.999999", "text"),
    (1114, -1, "infinity", "text"),
    (1184, -1, "2024-02-01 12:34:56.789+00", "text"),
    (1184, -1, "4714-11-24 00:00:00+00 BC", "text"),
    (1184, -1, "294276-12-31 23:59:59.999999+00", "text"),
    (1184, -1, "-infinity", "text"),
    (1186, -1, "-1 years -2 mons +3 days -04:05:06.789", "text"),
    (2950, -1, "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "text"),
    (114, -1, "{\"a\" :  1}", "text"),
    (114, -1, "1", "text"),
    (3802, -1, "1.00", "text"),
    (869, -1, "10.0.0.1", "text"),
    (650, -1, "10.0.0.1/32", "text"),
    (1560, 5, "01010", "text"),
    (3220, -1, "16/B374D848", "text"),
    (1007, -1, "{{1,2},{3,NULL}}", "text"),
    (3904, -1, "[1,10)", "text"),
    (4451, -1, "{[1,3),[5,7)}", "text"),
    (600, -1, "(-0,1e+300)", "text"),
    (3614, -1, "'a':1 'b':2A", "text"),
    (2205, -1, "pg_class", "text"),
    (99999, -1, "\"a\"=>\"1\"", "text"),
];

#[test]
fn every_value_comes_back_as_postgresql_printed_it_also_as_key_and_as_old_row() {
    let mut fixture = Fixture::new();
    for (oid, &(type_oid, modifier, text, class)) in (1000..).zip(CASES) {
        let shape = table(&format!("t{oid}"), &[("v", type_oid)]).oid(oid).with(|relation| {
            relation.columns[0].type_modifier = modifier;
        });
        let keyed = shape.clone().build();
        fixture.apply(&[insert(&keyed, &[Some(text)])]).unwrap();
        fixture.apply(&[update_from(&keyed, &[Some(text)], &[Some(text)])]).unwrap();
        let full = shape.full().build();
        fixture.apply(&[update_from(&full, &[Some(text)], &[Some(text)])]).unwrap();
        let connection = fixture.sql();
        let (family, back) = connection
            .query_row(&format!("SELECT v FROM t{oid}"), [], |row| {
                let family = Family::of(&full, type_oid, modifier);
                Ok((family, postgres_text(family, row.get_ref(0)?).unwrap().unwrap()))
            })
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&back), text, "{family:?}");
        assert_eq!(fixture.query(&format!("SELECT typeof(v) FROM t{oid}")), [format!("'{class}'")], "{text}");
    }
}

#[test]
fn what_a_type_never_prints_is_refused() {
    let mut fixture = Fixture::new();
    for (oid, (type_oid, text)) in (1000..).zip([(16, "true"), (23, "1.5"), (17, "abc"), (701, "x"), (790, "1,00 €")])
    {
        let t = table(&format!("t{oid}"), &[("v", type_oid)]).oid(oid).build();
        let error = fixture.apply(&[insert(&t, &[Some(text)])]).unwrap_err().to_string();
        assert!(error.contains("column \"v\" cannot take the value"), "{error}");
    }
}

#[test]
fn numbers_and_instants_sort_as_in_postgresql() {
    let mut fixture = Fixture::new();
    let sorted: &[(u32, i32, &[&str])] = &[
        (701, -1, &["-Infinity", "-1.5", "0", "2", "10", "1e+100", "Infinity", "NaN"]),
        (1700, (10 << 16 | 2) + 4, &["-1.50", "2.00", "10.00", "NaN"]),
        (790, -1, &["-$1,000.00", "$2.00", "$10.00"]),
        (
            1184,
            -1,
            &["-infinity", "2024-02-01 00:00:00+00", "2024-02-01 00:00:00.5+00", "2024-02-01 00:00:01+00", "infinity"],
        ),
        (1082, -1, &["-infinity", "0001-01-01", "2024-02-01", "9999-12-31", "infinity"]),
        (16, -1, &["f", "t"]),
    ];
    for (oid, (type_oid, modifier, texts)) in (1000..).zip(sorted) {
        let t = table(&format!("t{oid}"), &[("n", 23), ("v", *type_oid)])
            .oid(oid)
            .with(|relation| relation.columns[1].type_modifier = *modifier)
            .build();
        let numbers: Vec<String> = (0..texts.len()).map(|number| number.to_string()).collect();
        let rows: Vec<_> =
            numbers.iter().zip(*texts).rev().map(|(n, text)| insert(&t, &[Some(n), Some(text)])).collect();
        fixture.apply(&rows).unwrap();
        assert_eq!(fixture.query(&format!("SELECT n FROM t{oid} ORDER BY v")), numbers);
    }
}

#[test]
#[cfg(all(feature = "mysql", feature = "sqlserver"))]
fn the_documentation_is_what_the_code_says() {
    use crate::destination::kafka::KafkaColumn;
    use crate::destination::mysql::MySqlColumn;
    use crate::destination::sqlite::SqliteColumn;
    use crate::destination::sqlserver::SqlServerColumn;
    use crate::destination::value::{PG_TYPES, document};

    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/values.md");
    let text = document(&[&SqliteColumn, &MySqlColumn, &SqlServerColumn, &KafkaColumn]);
    for entry in PG_TYPES {
        assert!(text.contains(entry.name), "{} is missing", entry.name);
    }
    if std::env::var_os("PG2ANY_WRITE_DOCS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    assert!(
        std::fs::read_to_string(&path).unwrap_or_default() == text,
        "docs/values.md differs from the code: run this test with PG2ANY_WRITE_DOCS=1"
    );
}
