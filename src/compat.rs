//! Names of the crate `pg2any_lib` 0.11 beside its `Config`, so that programs written for it
//! compile.

use crate::config::{Config, ConfigError};
use crate::pipeline::{self, RunOptions};

/// Whatever ends a program that loads its settings and runs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CdcError {
    /// The settings.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The run.
    #[error(transparent)]
    Run(#[from] pipeline::Error),
}

/// A result with [`CdcError`].
pub type CdcResult<T> = Result<T, CdcError>;

/// A [`Config`] with what the ancestor's application added.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CdcAppConfig {
    /// The settings.
    pub cdc_config: Config,
}

impl CdcAppConfig {
    /// With these settings.
    #[must_use]
    pub const fn new(cdc_config: Config) -> Self {
        Self { cdc_config }
    }

    /// Serves metrics and status page at this port, for other machines too.
    pub fn with_metrics_port(&mut self, port: u16) {
        self.cdc_config.metrics_address = Some(format!("0.0.0.0:{port}"));
    }

    /// Has no effect: nothing shows it.
    pub fn with_version(&mut self, _version: &str) {
        self.cdc_config.warnings.push("the call with_version is no longer needed: nothing shows it".to_owned());
    }
}

/// The ancestor's application: [`pipeline::run`] with its settings.
#[derive(Debug)]
pub struct CdcApp {
    config: Config,
}

impl CdcApp {
    /// With these settings; the file is not used, because the position lives in the spool and at
    /// the destination.
    ///
    /// # Errors
    ///
    /// None.
    pub async fn new(config: CdcAppConfig, lsn_file: Option<&str>) -> CdcResult<Self> {
        Self::from_config(config.cdc_config, lsn_file).await
    }

    /// As [`CdcApp::new`].
    ///
    /// # Errors
    ///
    /// None.
    pub async fn from_config(mut config: Config, lsn_file: Option<&str>) -> CdcResult<Self> {
        if lsn_file.is_some() {
            config.warnings.push("a file for the last LSN is no longer needed: the spool has the position".to_owned());
        }
        Ok(Self { config })
    }

    /// Runs the pipeline.
    ///
    /// # Errors
    ///
    /// As [`pipeline::run`].
    pub async fn run(&mut self) -> CdcResult<()> {
        pipeline::run(&self.config, RunOptions::default()).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load_config_from_env;

    /// A program of the ancestor's shape; it is compiled, not run.
    #[allow(dead_code)]
    async fn a_program_written_for_the_ancestor_compiles() -> CdcResult<()> {
        let mut app_config = CdcAppConfig::new(load_config_from_env()?);
        app_config.with_metrics_port(8080);
        app_config.with_version("1.0");
        let mut app = CdcApp::new(app_config, None).await?;
        app.run().await?;
        CdcApp::from_config(Config::builder().build()?, Some("lsn")).await?.run().await?;
        crate::run_cdc_app(load_config_from_env()?, None).await?;
        Ok(())
    }
}
