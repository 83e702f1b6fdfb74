//! (known, relation, answers) → (steps | stop), as tables.

#![allow(clippy::unwrap_used)]

mod model;

pub(super) use self::model::Model;
use self::model::*;
use super::*;
use crate::change::DroppedColumn;
use crate::change::built::table;
use crate::position::Lsn;

#[test]
fn the_first_version_of_a_table_makes_it() {
    let composite = table("t", &[("id", INT), ("a", TEXT), ("j", 114)]).key(&["a", "id"]).build();
    assert_eq!(
        State::default().see(&composite).unwrap(),
        ["create public.t (id Integer(4), a Text, j Json) key id, a"]
    );
    let keyed_by_json = table("t", &[("j", 114)]).build();
    let stop = State::default().see(&keyed_by_json).unwrap_err();
    assert!(stop.contains("column \"j\" (json) cannot be made at the destination: no index takes it"), "{stop}");
    let full = table("t", &[("id", INT)]).full().build();
    assert_eq!(State::default().see(&full).unwrap(), ["create public.t (id Integer(4)) key id"]);
    let rows = table("t", &[("id", INT)]).with(|relation| relation.catalogue.estimated_rows = Some(7)).build();
    assert_eq!(State::default().evolve(&rows).unwrap().warnings, [Warning::RowsBefore(7)]);
}

#[test]
fn columns_come_go_and_get_other_names() {
    let ab = || t(&[("a", TEXT), ("b", TEXT)]).build();
    let swapped = t(&[("b", TEXT), ("a", TEXT)]).build();
    let a_again = t(&[("a", TEXT)]).with(|relation| relation.catalogue.columns[1].attnum = 3).build();
    check(
        vec![
            ("nothing changed", ab(), t(&[("a", TEXT), ("b", TEXT)]).build(), Ok(&[])),
            ("renamed", ab(), t(&[("a", TEXT), ("c", TEXT)]).build(), Ok(&["rename b to c"])),
            ("a chain of names", ab(), t(&[("b", TEXT), ("c", TEXT)]).build(), Ok(&["rename b to c", "rename a to b"])),
            ("a circle of names", ab(), swapped, Ok(&["rename a to ~0", "rename b to a", "rename ~0 to b"])),
            ("dropped", ab(), t(&[("a", TEXT)]).build(), Ok(&["retain b"])),
            (
                "dropped, and another added under its name",
                t(&[("a", TEXT)]).build(),
                a_again,
                Ok(&["rename a to a~dropped", "add a Text", "retain a~dropped"]),
            ),
            (
                "a catalogue that knows the later name only",
                t(&[("a", TEXT)]).with(|relation| relation.catalogue.columns[1].name = "b".to_owned()).build(),
                t(&[("b", TEXT)]).build(),
                Ok(&["rename a to b"]),
            ),
        ],
        |_| {},
    );
    check(vec![("dropped", ab(), t(&[("a", TEXT)]).build(), Ok(&["drop b"]))], |state| {
        state.on_dropped_column = OnDroppedColumn::Drop
    });
}

#[test]
fn rows_that_are_there_get_a_new_columns_value_where_it_is_known() {
    let id = || t(&[]).build();
    let a = || t(&[("a", TEXT)]);
    let changed_again = a().with(|relation| {
        let a = &mut relation.catalogue.columns[1];
        (a.type_oid, a.missing_value) = (1184, Some("2024-02-01".to_owned()));
    });
    let undecided = a().with(|relation| {
        relation.catalogue.columns.pop();
        relation.catalogue.undecided = true;
    });
    let generated = a().with(|relation| relation.catalogue.columns[1].generated = true);
    let gone = a().with(|relation| {
        relation.catalogue.columns.clear();
        relation.catalogue.found = false;
    });
    let cases = || -> Vec<Case> {
        vec![
            ("no default", id(), a().build(), Ok(&["add a Text"])),
            (
                "a constant",
                id(),
                with_default(a(), Some("'x'"), Some("x")).build(),
                Ok(&["add a Text", "fill a with x"]),
            ),
            ("a default that was set later", id(), with_default(a(), Some("'x'"), None).build(), Ok(&["add a Text"])),
            (
                "a volatile default",
                id(),
                rewritten(with_default(a(), Some("random()"), None)).build(),
                Err("(random())"),
            ),
            ("rewritten since", id(), rewritten(a()).build(), Err("was added and the table was rewritten")),
            ("another type by now", id(), changed_again.clone().build(), Err("changed again before its default")),
            ("a prepared transaction", id(), undecided.clone().build(), Err("added by a prepared transaction")),
            ("generated", id(), generated.clone().build(), Err("is generated")),
            ("a table that is gone", id(), gone.clone().build(), Ok(&["add a Text"])),
        ]
    };
    check(cases(), |_| {});
    // A change of an empty table is a change of nothing.
    let followed = |(name, known, next, _): Case| (name, known, next, Ok(["add a Text"].as_slice()));
    check(cases().into_iter().map(followed).collect(), |state| state.empty = true);
}

#[test]
fn what_was_not_sent_for_a_while_stops() {
    let whole = || t(&[("a", TEXT)]);
    let part = |list| {
        whole().with(move |relation| {
            relation.columns.truncate(1);
            relation.catalogue.column_list = list;
        })
    };
    let mut state = State::after(&whole().build());
    assert_eq!(state.see(&t(&[]).build()).unwrap(), ["retain a"]);
    assert!(state.see(&whole().build()).unwrap_err().contains("column \"a\" is sent again"));
    // The catalogue has forgotten why it was not sent.
    let mut state = State::after(&part(true).build());
    assert!(state.see(&part(false).build()).unwrap().is_empty());
    assert!(state.see(&whole().build()).unwrap_err().contains("\"a\" was not published before"));
    state.empty = true;
    assert_eq!(state.see(&whole().build()).unwrap(), ["add a Text"]);
}

#[test]
fn a_type_change_is_followed_where_every_value_is_known() {
    let built =
        |oid: u32, modifier: i32| t(&[("a", oid)]).with(move |relation| relation.columns[1].type_modifier = modifier);
    let plain = |oid: u32| built(oid, -1).build();
    let money = |precision, scale| built(1700, numeric(precision, scale)).build();
    let rewrite = |oid: u32| rewritten(built(oid, -1)).build();
    let ahead = |oid: u32, now: u32| {
        t(&[("a", oid)]).with(move |relation| relation.catalogue.columns[1].type_oid = now).build()
    };
    let cases = || -> Vec<Case> {
        vec![
            ("a longer varchar", built(1043, 14).build(), built(1043, 24).build(), Ok(&[])),
            (
                "more digits",
                money(10, 2),
                money(12, 2),
                Ok(&["type of a: Decimal { precision: 10, scale: 2 } to Decimal { precision: 12, scale: 2 }"]),
            ),
            (
                "more digits than a number holds",
                money(10, 2),
                money(20, 2),
                Ok(&[
                    "type of a: Decimal { precision: 10, scale: 2 } to Decimal { precision: 20, scale: 2 }, converted",
                ]),
            ),
            (
                "a time zone, unwritten",
                plain(1114),
                plain(1184),
                Ok(&["type of a: Timestamp to TimestampTz, converted"]),
            ),
            (
                "computed",
                plain(TEXT),
                rewrite(INT),
                Err("type of column \"a\" changed (text became int4), and PostgreSQL wrote"),
            ),
            ("may be computed", plain(TEXT), plain(INT), Err("type of column \"a\" changed (text became int4)")),
            ("a catalogue that was ahead", ahead(1043, TEXT), ahead(TEXT, TEXT), Err("may have written")),
        ]
    };
    check(cases(), |_| {});
    let widened = || vec![("widened", plain(INT), rewrite(20), Ok(["type of a: Integer(4) to Integer(8)"].as_slice()))];
    check(widened(), |_| {});
    let stopped = |(name, known, next, _): Case| (name, known, next, Err("(int4 became int8)"));
    check(widened().into_iter().map(stopped).collect(), |state| state.on_rewrite = OnRewrite::Stop);
    let mut state = State::after(&plain(INT));
    let cast = Warning::Cast { column: "a".to_owned(), was: "int4".to_owned(), is: "int8".to_owned() };
    assert_eq!(state.evolve(&rewrite(20)).unwrap().warnings, [cast]);
}

#[test]
fn a_catalogue_that_is_ahead_of_a_known_shape_teaches_nothing() {
    let built =
        |oid, now: u32| t(&[("a", oid)]).with(move |relation| relation.catalogue.columns[1].type_oid = now).build();
    let mut state = State::after(&built(1043, 1043));
    // After a restart the relation is sent again, and the catalogue is asked after the change.
    assert!(state.see(&built(1043, TEXT)).unwrap().is_empty());
    assert!(state.see(&built(TEXT, TEXT)).unwrap().is_empty(), "the rows were not written anew");
}

#[test]
fn a_column_of_which_nobody_knows_whether_it_is_another_stops() {
    let renamed = |number| {
        t(&[("a", TEXT)])
            .with(move |relation| {
                relation.catalogue.columns[1].name = "b".to_owned();
                relation.catalogue.columns[1].attnum = number;
            })
            .build()
    };
    let late = t(&[("b", TEXT)]).with(|relation| relation.catalogue.columns[1].attnum = 5).build();
    let wider = |oid, number| {
        t(&[("v", oid)])
            .with(move |relation| {
                let v = &mut relation.catalogue.columns[1];
                (v.attnum, v.type_oid) = (number, 20);
            })
            .build()
    };
    let replaced = t(&[("a", TEXT)])
        .with(|relation| {
            relation.catalogue.columns[1].attnum = 3;
            relation.catalogue.dropped.push(DroppedColumn { attnum: 2, twins: vec![3] });
            relation.catalogue.asked_for = Some((Lsn(8), 1));
        })
        .build();
    let passed = t(&[("a", TEXT), ("b", TEXT)])
        .with(|relation| {
            relation.catalogue.columns[1].attnum = 3;
            relation.catalogue.columns[2].attnum = 2;
            relation.catalogue.undecided = true;
        })
        .build();
    let cases: Vec<Case> = vec![
        ("came, or was renamed", renamed(5), late, Err("whether they were renamed cannot be told")),
        ("dropped and added with a wider type", wider(INT, 3), wider(20, 3), Err("type of column \"v\" changed")),
        ("widened", wider(INT, 2), wider(20, 2), Ok(&["type of v: Integer(4) to Integer(8)"])),
        ("replaced by one of its type", t(&[("a", TEXT)]).build(), replaced, Err("may have been dropped and another")),
        (
            "names passed to and fro",
            t(&[("a", TEXT), ("b", TEXT)]).build(),
            passed,
            Err("names passed between columns"),
        ),
    ];
    check(cases, |_| {});
}

#[test]
fn a_key_changes_with_the_replica_identity_and_one_of_the_catalogue_when_the_rows_have_it() {
    let columns = [("a", TEXT), ("b", INT)];
    let cases: Vec<Case> = vec![
        ("composite", t(&columns).build(), t(&columns).key(&["a", "b"]).build(), Ok(&["key (id) to (a, b)"])),
        ("none", t(&columns).build(), t(&columns).keyless().full().build(), Ok(&["key (id) to ()"])),
        (
            "renamed",
            t(&columns).build(),
            table("t", &[("Key", INT), ("a", TEXT), ("b", INT)]).build(),
            Ok(&["rename id to Key"]),
        ),
        (
            "dropped from the table",
            t(&columns).key(&["id", "b"]).build(),
            t(&[("a", TEXT)]).build(),
            Ok(&["key (id, b) to (id)", "retain b"]),
        ),
    ];
    check(cases, |_| {});
    let full = |key: &[&str]| t(&columns).key(key).full().build();
    check(vec![("not yet", full(&[]), full(&["id"]), Ok(&[]))], |state| state.indistinct = true);
    check(vec![("by now", full(&[]), full(&["id"]), Ok(&["key () to (id)"]))], |_| {});
}

#[test]
fn a_renamed_or_recreated_table_stops_with_the_way_out() {
    let known = t(&[]).build();
    let cases: Vec<Case> = vec![
        ("renamed", known.clone(), table("u", &[("id", INT)]).build(), Err("public.t was renamed to public.u")),
        ("recreated", known.clone(), t(&[]).oid(20000).build(), Err("was dropped and created again")),
    ];
    check(cases, |_| {});
    let stop = State::after(&known).evolve(&table("u", &[("id", INT)]).build()).unwrap_err();
    let remedy = stop.remedy(&Model);
    assert!(remedy.starts_with("Way out: rename the destination's table to \"public.u\""), "{remedy}");
    assert!(remedy.contains("DELETE FROM _pg2any_tables WHERE oid = 16384 in the model"), "{remedy}");
    let mut gone = State::after(&known).with(|state| {
        state.foreign.push(("elsewhere", Vec::new()));
    });
    gone.tables.tables.get_mut(&16384).unwrap().target = TableName::plain("nowhere");
    let policies = Policies {
        schema_mapping: &gone.mapping,
        on_dropped_column: OnDroppedColumn::Keep,
        on_rewrite: OnRewrite::Follow,
    };
    let stop = evolve(&Model, &policies, &gone.tables, &known, &Answers::default()).unwrap_err();
    assert_eq!(stop, Stop::Missing(TableName::plain("nowhere")));
}

#[test]
fn tables_share_no_name_and_a_long_name_is_cut() {
    let mut state = State::after(&t(&[]).build());
    state.mapping = "sales:public".parse().unwrap();
    let sales = t(&[]).oid(2).with(|relation| relation.schema = "sales".to_owned()).build();
    assert!(state.see(&sales).unwrap_err().contains("sales.t and public.t would both be table \"public.t\""));
    state.tables.others.push((TableName { schema: "public".to_owned(), name: "u".to_owned() }, "other".to_owned()));
    let taken = table("u", &[("id", INT)]).oid(3).build();
    assert!(state.see(&taken).unwrap_err().contains("written by the cursor \"other\""));
    let long = table(&"n".repeat(80), &[("id", INT), ("a", TEXT), ("A", TEXT)]).oid(4).build();
    let evolution = state.evolve(&long).unwrap();
    assert_eq!(evolution.known.target.name.len(), 64);
    let names: Vec<&str> = evolution.known.columns.iter().map(|column| column.target.as_str()).collect();
    assert_eq!(names, ["id", "a", "A~2"]);
}

#[test]
fn a_table_of_somebody_else_is_fitted_by_name_and_never_rebuilt() {
    let column = |name: &str, declared: &str| ExistingColumn {
        name: name.to_owned(),
        declared: declared.to_owned(),
        ..ExistingColumn::default()
    };
    let foreign = |columns: Vec<ExistingColumn>| State::default().with(|state| state.foreign.push(("t", columns)));
    let id = || column("ID", "Integer(4)");
    let mut state = foreign(vec![id(), column("note", "whatever"), column("A", "Text")]);
    assert!(state.see(&t(&[("a", TEXT)]).build()).unwrap().is_empty());
    let known = &state.tables.tables[&16384];
    assert!(!known.created && known.columns[1].target == "A");
    let stop = state.clone().see(&t(&[("a", INT)]).build()).unwrap_err();
    assert!(stop.contains("the type of column \"a\" changed"), "{stop}");
    // A retained column that requires a value is its owner's affair.
    state.foreign[0].1[2].not_null = true;
    let stop = state.clone().see(&t(&[]).build()).unwrap_err();
    assert!(stop.contains("requires a value in it"), "{stop}");
    state.foreign[0].1[2].default = Some("''".to_owned());
    assert_eq!(state.see(&t(&[]).build()).unwrap(), ["retain A"]);
    let stop = foreign(vec![id()]).see(&t(&[("a", TEXT)]).build()).unwrap_err();
    assert!(stop.contains("has no column \"a\""), "{stop}");
    let stop = foreign(vec![id(), column("a", "uuid")]).see(&t(&[("a", TEXT)]).build()).unwrap_err();
    assert!(stop.contains("column \"a\" is declared \"uuid\", which changes values"), "{stop}");
    let generated = ExistingColumn { generated: true, ..column("a", "uuid") };
    assert!(foreign(vec![id(), generated]).see(&t(&[("a", TEXT)]).build()).unwrap().is_empty());
}

#[test]
fn a_table_with_deferred_rows_does_not_change_its_shape() {
    let cases: Vec<Case> = vec![
        ("another column", t(&[]).build(), t(&[("a", TEXT)]).build(), Err("while rows wait for their unique value")),
        ("the same", t(&[]).build(), t(&[]).build(), Ok(&[])),
    ];
    check(cases, |state| state.deferred = 1);
}

#[test]
fn a_step_that_was_done_is_known_and_each_step_is_kept_as_it_is() {
    let mut state = State::after(&t(&[("a", TEXT), ("b", TEXT), ("c", INT)]).build());
    let before = state.existing(&TableName { schema: "public".to_owned(), name: "t".to_owned() }).unwrap();
    let next = with_default(t(&[("b", TEXT), ("a", TEXT), ("c", 20), ("d", TEXT)]), Some("'x'"), Some("x"));
    let steps = state.evolve(&rewritten(next).build()).unwrap().steps;
    let kept: Vec<Step> = serde_json::from_str(&serde_json::to_string(&steps).unwrap()).unwrap();
    assert_eq!(kept, steps);
    let mut table = before;
    for step in &steps {
        assert!(!step.is_done(&Model, Some(&table)), "{step:?}");
        let column = |name: &str| table.columns.iter().position(|column| column.name == name);
        match step {
            Step::RenameColumn { from, to } => {
                let from = column(from).unwrap();
                table.columns[from].name.clone_from(to);
            }
            Step::AddColumn(added) => table.columns.push(ExistingColumn {
                name: added.target.clone(),
                declared: Model.column_type(added, false).unwrap(),
                ..ExistingColumn::default()
            }),
            Step::ChangeType { to, .. } => {
                let changed = column(&to.target).unwrap();
                table.columns[changed].declared = Model.column_type(to, false).unwrap();
            }
            Step::FillColumn { .. } => continue,
            other => panic!("{other:?}"),
        }
        assert!(step.is_done(&Model, Some(&table)), "{step:?}");
    }
    assert!(!steps[0].is_done(&Model, None));
}

#[test]
fn rows_are_found_by_what_is_unique_and_key_columns_must_tell_keys_apart() {
    let relation = t(&[("a", TEXT)]).build();
    let state = State::after(&relation);
    let known = &state.tables.tables[&relation.oid];
    let mut existing = state.existing(&known.target).unwrap();
    let plan = |existing: &ExistingTable| RowPlan::new(&Model, &relation, known, existing);
    existing.unique = vec![vec![Some("id".to_owned())]];
    assert_eq!(plan(&existing).unwrap().independent, Some(vec![0]));
    existing.unique.push(vec![Some("a".to_owned())]);
    assert_eq!(plan(&existing).unwrap().independent, None, "rows meet in another unique value");
    existing.columns[0].collation = Some("NOCASE".to_owned());
    let stop = plan(&existing).unwrap_err().to_string();
    assert!(stop.contains("key column \"id\" has the collation NOCASE"), "{stop}");
}
