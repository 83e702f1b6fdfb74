//! Runs the ancestor as its own documentation does, configured by its environment variables; ended
//! by a signal.

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = pg2any_lib::load_config_from_env()?;
    pg2any_lib::run_cdc_app(config, None).await?;
    Ok(())
}
