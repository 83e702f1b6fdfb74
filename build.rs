//! Tells the program what it is built from: the commit (of the checkout, or `PG2ANY_COMMIT` where
//! there is none, as in an image) and the version of the storage engine.

use std::process::Command;

fn main() {
    println!("cargo:rerun-if-env-changed=PG2ANY_COMMIT");
    println!("cargo:rerun-if-changed=Cargo.lock");
    let given = std::env::var("PG2ANY_COMMIT").ok().filter(|commit| !commit.is_empty());
    if given.is_none()
        && let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"])
    {
        println!("cargo:rerun-if-changed={log}");
    }
    if let Some(commit) = given.or_else(|| git(&["rev-parse", "--short=12", "HEAD"])) {
        println!("cargo:rustc-env=PG2ANY_COMMIT={commit}");
    }
    let lock = std::fs::read_to_string("Cargo.lock").unwrap_or_default();
    let fjall = lock.split("[[package]]").find(|package| package.contains("\nname = \"fjall\"\n"));
    if let Some(version) = fjall.and_then(|package| package.split("version = \"").nth(1)?.split('"').next()) {
        println!("cargo:rustc-env=PG2ANY_FJALL={version}");
    }
}

/// What git answers here, if this is a checkout of this project.
fn git(arguments: &[&str]) -> Option<String> {
    if !std::path::Path::new(".git").exists() {
        return None;
    }
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}
