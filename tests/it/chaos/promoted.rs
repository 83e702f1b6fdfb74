//! The source crashes for good, in the middle of traffic, and its standby is promoted: it has the
//! slot, and the pipeline goes on there. Each round is one such failover; the next standby follows
//! the one that was promoted.
//!
//! Commits wait for the standby, and the slot does not go ahead of it, so nothing that anybody saw
//! committed is lost with the old primary: the comparison is exact.

use super::{Place, Plan, World, arrange_on, initialise_pgbench, into_tables, report};
use crate::crash::passed_with_sqlite;
use crate::failover::{promote, standby_with_slots, take_slot_over, until};
use crate::server::{Server, Version, failpoints_are_built_in, say};

/// A standby that every commit waits for.
fn standby(world: &mut World) -> &'static Server {
    let primary = world.server;
    let standby: &'static Server = Box::leak(Box::new(standby_with_slots(primary)));
    let mut client = primary.connect("postgres");
    for setting in ["synchronous_standby_names = 'walreceiver'", "synchronized_standby_slots = 'standby'"] {
        client.batch_execute(&format!("ALTER SYSTEM SET {setting}")).unwrap();
    }
    client.batch_execute("SELECT pg_reload_conf()").unwrap();
    let sql = "SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'";
    until("commits wait for the standby", || client.query_opt(sql, &[]).unwrap().is_some());
    let slot = world.database.name.clone();
    take_slot_over(primary, standby, &slot, || {
        world.keep_running();
        world.database.mark();
    });
    standby
}

fn fail_over(world: &mut World, standby: &'static Server) {
    world.start_pgbench();
    world.steps();
    world.keep_running();
    world.pause();
    let old = std::mem::replace(&mut world.server, standby);
    old.stop("immediate");
    if world.random.percent(50) {
        world.kill();
    }
    let early = world.random.percent(50);
    if early {
        // It is led to a standby that is none yet a primary.
        world.proxy.turn_to(standby.port);
        world.keep_running();
        world.pause();
    }
    promote(standby);
    world.proxy.turn_to(standby.port);
    world.counts.promotions += 1;
    std::fs::remove_dir_all(old.data()).unwrap();
    world.database.server = standby;
    world.database.client = world.database.session();
    world.history.reconnect(&world.database);
    world.end_pgbench();
}

#[test]
fn sqlite_is_equal_to_a_promoted_standby_after_everything_that_can_happen() {
    if !failpoints_are_built_in() {
        return;
    }
    let Some((server, mut database, mut pipeline, proxy)) = arrange_on(Version::V18) else { return };
    pipeline.set("PG2ANY_STATUS_INTERVAL", "100ms");
    let (code, out, err) = pipeline.run(&["slot", "create", "--failover"]);
    assert_eq!(code, 0, "{out}{err}");
    initialise_pgbench(&mut database);
    let plan = Plan::read();
    let mut world =
        into_tables((server, database, pipeline, proxy), &plan, passed_with_sqlite, Place::default(), false);
    say(&format!("chaos failover: seed {}", plan.seed));
    while plan.goes_on(world.counts.rounds) {
        let standby = standby(&mut world);
        world.round();
        fail_over(&mut world, standby);
        world.look();
        report("failover", &world.counts);
    }
}
