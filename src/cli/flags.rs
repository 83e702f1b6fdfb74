//! The settings' table as command line flags.

use std::collections::BTreeMap;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use pg2any_lib::config::{Audience, Config, Form, Purpose, SETTINGS, Setting, resolve};

use super::exit::Failure;

/// The flags of a command that runs the whole pipeline.
pub type RunFlags = Flags<{ RUN }>;
/// The flags of a command that connects to the source.
pub type SourceFlags = Flags<{ SOURCE }>;
/// The flags of a command that opens the spool and the destination.
pub type DestinationFlags = Flags<{ DESTINATION }>;
/// The flags of a command that opens the spool alone.
pub type SpoolFlags = Flags<{ SPOOL }>;

const RUN: u8 = 0;
const SOURCE: u8 = 1;
const DESTINATION: u8 = 2;
const SPOOL: u8 = 3;

/// The flags that were given, by name; what they mean is resolved together with the environment.
#[derive(Clone, Debug, Default)]
pub struct Flags<const PURPOSE: u8>(BTreeMap<String, String>);

impl<const PURPOSE: u8> Flags<PURPOSE> {
    const PURPOSE: Purpose = match PURPOSE {
        RUN => Purpose::Run,
        SOURCE => Purpose::Source,
        DESTINATION => Purpose::Destination,
        _ => Purpose::Spool,
    };

    /// Flags and environment together, checked.
    pub fn config(&self) -> Result<Config, Failure> {
        Ok(resolve(&self.0, std::env::vars_os(), Self::PURPOSE)?)
    }

    fn settings() -> impl Iterator<Item = &'static Setting> {
        SETTINGS.iter().filter(|setting| match Self::PURPOSE {
            Purpose::Run => true,
            Purpose::Source => matches!(setting.audience, Audience::Source | Audience::Spool),
            Purpose::Destination => matches!(setting.audience, Audience::Destination | Audience::Spool),
            Purpose::Spool => setting.audience == Audience::Spool,
        })
    }
}

impl<const PURPOSE: u8> FromArgMatches for Flags<PURPOSE> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let names = Self::settings().flat_map(|setting| {
            let file = match setting.form {
                Form::Secret { file, .. } | Form::Secrets { file, .. } => Some(file),
                _ => None,
            };
            [Some(setting.flag), file].into_iter().flatten()
        });
        let given = names.filter_map(|name| Some((name.to_owned(), matches.get_one::<String>(name)?.clone())));
        Ok(Self(given.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl<const PURPOSE: u8> Args for Flags<PURPOSE> {
    fn augment_args(mut command: Command) -> Command {
        for setting in Self::settings() {
            let default = match setting.default {
                Some(text) if !text.is_empty() => format!(" [default: {text}]"),
                _ => String::new(),
            };
            let help = format!("{}{default} [env: {}]", setting.help, setting.variable);
            let arg = Arg::new(setting.flag).long(setting.flag).help(help).action(ArgAction::Set);
            // A subcommand of `inspect` takes the directory before its name or after it.
            let arg = arg.global(Self::PURPOSE == Purpose::Spool);
            command = match setting.form {
                Form::Value(name) => command.arg(arg.value_name(name)),
                Form::Switch => command.arg(
                    arg.value_name("true|false").num_args(0..=1).require_equals(true).default_missing_value("true"),
                ),
                Form::Secret { value, file } | Form::Secrets { value, file } => {
                    let help = format!("Read --{} from this file. [env: {}_FILE]", setting.flag, setting.variable);
                    let file = Arg::new(file).long(file).value_name("PATH").help(help).action(ArgAction::Set);
                    command.arg(arg.value_name(value)).arg(file)
                }
            };
        }
        command
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}
