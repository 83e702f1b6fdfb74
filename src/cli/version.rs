//! `pg2any --version`: what one wants to know of a program that behaves oddly.

use std::sync::LazyLock;

use pg2any_lib::build;

/// Version, commit, features, and libraries with their versions.
pub static LONG: LazyLock<String> = LazyLock::new(|| {
    let libraries = build::libraries().into_iter().map(|(name, version)| format!("{name} {version}"));
    format!(
        "{}\ncommit    {}\nfeatures  {}\nlibraries {}",
        env!("CARGO_PKG_VERSION"),
        build::COMMIT,
        build::FEATURES.join(", "),
        libraries.collect::<Vec<_>>().join(", ")
    )
});
