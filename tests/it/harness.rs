//! The harness itself: servers start, databases are apart, the binary can be run.

use crate::database::{Database, HOSTILE_DEFAULTS};
use crate::driver::Pipeline;

on_each_server! {
    fn a_test_has_a_database_a_publication_and_a_slot_of_its_own(server) {
        let mut one = Database::streaming(server);
        let mut other = Database::new(server);
        one.create_slot();
        assert_ne!(one.name, other.name);
        assert_eq!(one.slot("plugin").as_deref(), Some("pgoutput"));
        assert_eq!(other.slot("plugin"), None);
        assert_eq!(one.text("SELECT count(*) FROM pg_publication"), "1");
        let mut later = one.session();
        let memory: String = later.query_one("SHOW logical_decoding_work_mem", &[]).unwrap().get(0);
        assert_eq!(memory, "64kB");
        assert!(server.log().contains("ready to accept connections"));
    }

    fn hostile_defaults_change_how_values_are_printed(server) {
        let database = Database::new(server);
        for setting in HOSTILE_DEFAULTS {
            database.default(setting);
        }
        let mut later = database.session();
        let printed: String = later.query_one("SELECT ('2024-02-01'::date)::text", &[]).unwrap().get(0);
        assert_eq!(printed, "01/02/2024");
    }
}

#[test]
fn the_binary_runs_with_the_settings_of_the_test_alone() {
    let Some(server) = crate::server::Version::ALL.into_iter().find_map(crate::server::Server::shared) else { return };
    let database = Database::new(server);
    let pipeline = Pipeline::new(&database);
    let command = pipeline.command(&["--version"]);
    assert!(command.get_envs().any(|(name, value)| name == "CDC_DEST_TYPE" && value.is_some()));
    let (code, ..) = pipeline.run(&["--version"]);
    assert_eq!(code, 0);
    assert!(pipeline.root().is_dir());
}
