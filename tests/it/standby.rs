//! A second process with `--standby` waits, and goes on where the first one ended.

use serde_json::Value;

use crate::database::Database;
use crate::driver::{Pipeline, Running};
use crate::observe::get;
use crate::refusals::TABLE;
use crate::server::{Server, free_port};

fn arrange(server: &'static Server) -> (Database, Pipeline) {
    let mut database = Database::new(server);
    database.execute(TABLE);
    let mut pipeline = Pipeline::new(&database);
    pipeline.catch_up();
    // As one would set two machines up: whoever starts first has it.
    pipeline.set("PG2ANY_STANDBY", "true");
    (database, pipeline)
}

/// A row that is committed now comes by this process.
fn follows(running: &mut Running, pipeline: &Pipeline, database: &mut Database, id: i32) {
    database.execute(&format!("INSERT INTO t VALUES ({id}, 'x')"));
    running.until("the row arrives", || pipeline.has(&format!("SELECT 1 FROM t WHERE id = {id}")));
}

on_each_server! {
    fn a_standby_on_the_same_storage_takes_over_when_the_first_is_killed(server) {
        let (mut database, pipeline) = arrange(server);
        let mut first = pipeline.start();
        follows(&mut first, &pipeline, &mut database, 1);
        let port = free_port();
        let mut second = pipeline.start_with(&[("PG2ANY_METRICS_ADDRESS", &format!("127.0.0.1:{port}"))], &[]);
        second.until_said("waiting until it is gone");
        // It lives, and says that it is not its turn.
        assert_eq!(get(port, "/health").0, 200);
        let (status, ready) = get(port, "/ready");
        let ready: Value = serde_json::from_str(&ready).unwrap();
        assert_eq!((status, &ready["state"], &ready["reasons"][0]["code"]), (503, &"standby".into(), &"standby".into()));
        assert_eq!(get(port, "/metrics").0, 503);
        follows(&mut first, &pipeline, &mut database, 2);
        assert!(first.ended().is_none() && !second.said().contains("turn"), "{}", second.said());
        first.kill();
        follows(&mut second, &pipeline, &mut database, 3);
        second.until("it is ready", || get(port, "/ready").0 == 200);
        second.terminate();
        assert_eq!(pipeline.lines("SELECT id FROM t ORDER BY id"), ["1", "2", "3"]);
    }

    fn a_standby_with_a_data_directory_of_its_own_waits_for_the_slot(server) {
        let (mut database, mut pipeline) = arrange(server);
        pipeline.set("PG2ANY_ACK", "applied");
        let mut first = pipeline.start();
        follows(&mut first, &pipeline, &mut database, 1);
        let other = pipeline.beside("other").display().to_string();
        let mut second = pipeline.start_with(&[("PG2ANY_DATA_DIR", &other)], &[]);
        second.until_said("another process reads from the slot");
        follows(&mut first, &pipeline, &mut database, 2);
        // The checkpoint is still the first one's.
        assert!(first.ended().is_none() && !second.said().contains("destination connected"), "{}", second.said());
        first.kill();
        follows(&mut second, &pipeline, &mut database, 3);
        // And back: the directory of the first one is behind by now, and goes on all the same.
        let mut first = pipeline.start();
        first.until_said("another process reads from the slot");
        follows(&mut second, &pipeline, &mut database, 4);
        second.kill();
        follows(&mut first, &pipeline, &mut database, 5);
        first.terminate();
        assert_eq!(pipeline.lines("SELECT id FROM t ORDER BY id"), ["1", "2", "3", "4", "5"]);
    }

    fn a_standby_that_waits_ends_in_good_order(server) {
        let (mut database, pipeline) = arrange(server);
        let mut first = pipeline.start();
        follows(&mut first, &pipeline, &mut database, 1);
        for settings in [None, Some(("PG2ANY_DATA_DIR", pipeline.beside("other").display().to_string()))] {
            let settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let mut second = pipeline.start_with(&settings, &[]);
            second.until_said("waiting until it is gone");
            second.terminate();
        }
        first.terminate();
    }
}
