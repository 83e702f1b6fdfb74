//! How the source is reached: TLS, unix sockets, names, secrets. libpq does the work; that what a
//! user writes gets there is ours.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::database::Database;
use crate::driver::Pipeline;
use crate::refusals::{SOURCE, stops};
use crate::server::{Server, Version, say};

fn openssl(directory: &Path, arguments: &str) {
    let output = Command::new("openssl").args(arguments.split(' ')).current_dir(directory).output().expect("openssl");
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Two authorities, and certificates of the first for the server (127.0.0.1) and for a role.
pub fn certificates(directory: &Path) {
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    for authority in ["ca", "other"] {
        openssl(
            directory,
            &format!("req -x509 {key} -keyout {authority}.key -out {authority}.crt -subj /CN={authority} -days 2"),
        );
    }
    std::fs::write(directory.join("names"), "subjectAltName=IP:127.0.0.1").unwrap();
    for (name, subject) in [("server", "127.0.0.1"), ("client", "certified")] {
        openssl(directory, &format!("req {key} -keyout {name}.key -out {name}.csr -subj /CN={subject}"));
        openssl(
            directory,
            &format!(
                "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out {name}.crt -days 2 -extfile names"
            ),
        );
    }
}

/// A server that asks `secure` for TLS and a password, and `certified` for a certificate; its
/// files, and a pipeline from it.
pub fn guarded() -> Option<(Server, tempfile::TempDir, Pipeline)> {
    let server = Server::own(Version::V15, &[])?;
    let directory = tempfile::tempdir().unwrap();
    certificates(directory.path());
    for name in ["server.key", "server.crt", "ca.crt"] {
        server.write(&format!("data/{name}"), &std::fs::read(directory.path().join(name)).unwrap());
    }
    server.write(
        "data/pg_hba.conf",
        b"host all postgres 127.0.0.1/32 trust\nhostssl all secure 127.0.0.1/32 scram-sha-256\n\
          hostssl all certified 127.0.0.1/32 cert\n",
    );
    let mut client = server.connect("postgres");
    for sql in [
        "CREATE ROLE secure LOGIN SUPERUSER PASSWORD 'Tr0ub4dor-3'; CREATE ROLE certified LOGIN SUPERUSER",
        "CREATE TABLE t (id int PRIMARY KEY); CREATE PUBLICATION p FOR TABLE t",
        "SELECT pg_create_logical_replication_slot('s', 'pgoutput')",
        "ALTER SYSTEM SET ssl_ca_file = 'ca.crt'",
    ] {
        client.batch_execute(sql).unwrap();
    }
    if let Err(error) = client.batch_execute("ALTER SYSTEM SET ssl = on") {
        say(&format!("SKIPPED: TLS. This PostgreSQL was built without it: {error}"));
        return None;
    }
    drop(client);
    let mut server = server;
    server.stop("fast");
    server.launch().unwrap();
    let pipeline = Pipeline::bare("host=127.0.0.1 dbname=postgres", "s", "p");
    Some((server, directory, pipeline))
}

/// A connection string for this role with these parameters.
fn string(server: &Server, user: &str, parameters: &str) -> String {
    format!("postgresql://{user}@127.0.0.1:{}/postgres?{parameters}", server.port)
}

#[test]
fn every_tls_mode_connects_where_it_may_and_says_why_where_not() {
    let Some((server, files, mut pipeline)) = guarded() else { return };
    let file = |name: &str| files.path().join(name).to_str().unwrap().to_owned();
    let (ca, other) = (file("ca.crt"), file("other.crt"));
    let mut client = server.connect("postgres");
    let mut id = 0;
    let secure = "secure:Tr0ub4dor-3";
    let certificate =
        format!("sslmode=verify-full&sslrootcert={ca}&sslcert={}&sslkey={}", file("client.crt"), file("client.key"));
    for (user, parameters) in [
        (secure, "sslmode=require".to_owned()),
        (secure, "sslmode=prefer".to_owned()),
        (secure, format!("sslmode=verify-ca&sslrootcert={ca}")),
        (secure, format!("sslmode=verify-full&sslrootcert={ca}")),
        ("certified", certificate),
    ] {
        id += 1;
        client.execute("INSERT INTO t VALUES ($1)", &[&id]).unwrap();
        pipeline.set("CDC_SOURCE_CONNECTION_STRING", &string(&server, user, &parameters));
        let mut running = pipeline.start();
        running.until("the row", || pipeline.has(&format!("SELECT 1 FROM t WHERE id = {id}")));
        let sql = "SELECT count(*) FROM pg_stat_replication JOIN pg_stat_ssl USING (pid) WHERE ssl";
        assert_eq!(client.query_one(sql, &[]).unwrap().get::<_, i64>(0), 1, "{parameters}: not encrypted");
        running.terminate();
    }
    for (user, parameters, says) in [
        (secure, "sslmode=disable".to_owned(), "pg_hba.conf"),
        (secure, format!("sslmode=verify-ca&sslrootcert={other}"), "certificate verify failed"),
        (secure, format!("sslmode=verify-full&sslrootcert={other}"), "certificate verify failed"),
        (secure, "sslmode=verify-full&sslrootcert=/nonexistent".to_owned(), "root certificate file"),
        ("certified", format!("sslmode=verify-full&sslrootcert={ca}"), "client certificate"),
        ("secure:Wr0ng-Pa55", "sslmode=require".to_owned(), "password authentication failed"),
    ] {
        pipeline.set("CDC_SOURCE_CONNECTION_STRING", &string(&server, user, &parameters));
        let said = stops(&pipeline, SOURCE, &[says]);
        assert!(!said.contains("Tr0ub4dor") && !said.contains("Wr0ng"), "{said}");
    }
    // The certificate is for the address, not for a name.
    let named =
        string(&server, secure, &format!("sslmode=verify-full&sslrootcert={ca}")).replace("127.0.0.1", "localhost");
    pipeline.set("CDC_SOURCE_CONNECTION_STRING", &named);
    stops(&pipeline, SOURCE, &["does not match host name"]);
    pipeline.set("CDC_SOURCE_CONNECTION_STRING", &string(&server, secure, "sslmode=require"));
    client.batch_execute("INSERT INTO t VALUES (100)").unwrap();
    pipeline.catch_up();
    assert_eq!(pipeline.lines("SELECT count(*) FROM t"), ["6"]);
}

#[test]
fn a_secret_from_a_file_is_used_and_never_shown() {
    let Some((server, files, mut pipeline)) = guarded() else { return };
    let secret = files.path().join("source");
    let write = |password: &str| {
        std::fs::write(&secret, format!("{}\n", string(&server, &format!("secure:{password}"), "sslmode=require")))
            .unwrap();
    };
    write("Tr0ub4dor-3");
    server.connect("postgres").batch_execute("INSERT INTO t VALUES (1)").unwrap();
    pipeline.unset("CDC_SOURCE_CONNECTION_STRING").set("RUST_LOG", "trace");
    let by_variable = ("CDC_SOURCE_CONNECTION_STRING_FILE", secret.to_str().unwrap());
    let mut running = pipeline.start_with(&[by_variable], &[]);
    running.until("the row", || pipeline.has("SELECT 1 FROM t"));
    for file in ["cmdline", "environ"] {
        let seen = std::fs::read(format!("/proc/{}/{file}", running.id())).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&seen).contains("Tr0ub4dor"), "{file}");
    }
    assert!(!running.terminate().contains("Tr0ub4dor"));
    let output = pipeline.command(&["source", "adopt", "--source-file", by_variable.1]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    write("Wr0ng-Pa55");
    let mut running = pipeline.start_with(&[by_variable], &[]);
    assert_eq!(running.wait(crate::driver::PATIENCE).code(), Some(SOURCE), "{}", running.said());
    assert!(!running.said().contains("Wr0ng"), "{}", running.said());
    for entry in walk(&pipeline.data()) {
        let bytes = std::fs::read(&entry).unwrap_or_default();
        assert!(!bytes.windows(9).any(|window| window == b"Tr0ub4dor"), "in {}", entry.display());
    }
}

fn walk(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

on_each_server! {
    fn a_unix_socket_is_used_where_the_string_names_one(server) {
        let (mut database, mut pipeline) = crate::delivery::arrange(server, "CREATE TABLE t (id int PRIMARY KEY)");
        let (socket, name) = (server.directory.to_str().unwrap(), database.name.clone());
        let port = server.port;
        for (id, string) in [
            (1, format!("host={socket} port={port} user=postgres dbname={name}")),
            (2, format!("postgresql://postgres@{}:{port}/{name}", socket.replace('/', "%2F"))),
            (3, format!("postgresql:///{name}?host={socket}&port={port}&user=postgres")),
        ] {
            pipeline.set("CDC_SOURCE_CONNECTION_STRING", &string);
            database.execute(&format!("INSERT INTO t VALUES ({id})"));
            let mut running = pipeline.start();
            running.until("the row", || pipeline.has(&format!("SELECT 1 FROM t WHERE id = {id}")));
            let address = database.text(&format!("SELECT coalesce(client_addr::text, 'socket') FROM pg_stat_replication JOIN pg_replication_slots ON pid = active_pid WHERE slot_name = '{name}'"));
            assert_eq!(address, "socket", "{string}");
            running.terminate();
        }
    }

    fn the_walsender_shows_the_name_that_the_user_gave_or_ours(server) {
        let (mut database, mut pipeline) = crate::delivery::arrange(server, "CREATE TABLE t (id int PRIMARY KEY)");
        for (more, shown) in [("", "pg2any"), ("&application_name=shop%20replica", "shop replica")] {
            let url = format!("{}{more}", database.url());
            pipeline.set("CDC_SOURCE_CONNECTION_STRING", &url);
            let mut running = pipeline.start();
            running.until_caught_up(&pipeline, &mut database);
            assert_eq!(name_shown(&mut database), shown);
            running.terminate();
        }
    }
}

fn name_shown(database: &mut Database) -> String {
    let slot = database.name.clone();
    database.text(&format!(
        "SELECT application_name FROM pg_stat_replication JOIN pg_replication_slots ON pid = active_pid WHERE slot_name = '{slot}'"
    ))
}
