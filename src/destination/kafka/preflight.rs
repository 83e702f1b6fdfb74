//! What `pg2any check` is told of a broker and its topics.

use std::sync::Arc;

use super::address::Address;
use super::checkpoint::Reader;
use super::client;
use super::template::Template;
use super::topics::{Topics, Wanted};
use crate::change::Relation;
use crate::destination::{DestinationError, Options};
use crate::finding::Finding;

/// Connects and looks.
pub(super) fn preflight(options: &Options, relations: &[Arc<Relation>]) -> Result<Vec<Finding>, DestinationError> {
    let settings = &options.kafka;
    let address = Address::parse(options.uri.expose(), settings.prefix.as_deref())?;
    let (base, limit) = (client::base(&address, settings), options.connect_timeout);
    let checkpoint_topic = format!("{}.pg2any-checkpoint", address.prefix);
    let reader = Reader::new(&base, checkpoint_topic.clone(), limit)?;
    let topics = Topics::new(&base, address.brokers.clone(), settings.clone(), limit)?;
    let mut findings = vec![Finding::ok(format!("connected to {}", address.brokers))];
    let look = |of: &str, topic: &str, wanted: &Wanted| -> Result<Finding, DestinationError> {
        Ok(match topics.look(reader.client(), topic)? {
            Some((partitions, replicas)) => {
                Finding::ok(format!("{of}: topic {topic} has {partitions} partitions and {replicas} replicas"))
            }
            None if settings.create_topics => Finding::ok(format!("{of}: topic {topic} will be made")),
            None => topics.missing(topic, wanted).into_finding_of(of),
        })
    };
    findings.push(look("the checkpoint", &checkpoint_topic, &Topics::of_checkpoint())?);
    let wanted = topics.of_tables();
    for relation in relations {
        let template = Template::new(
            relation,
            &address.prefix,
            &options.schema_mapping,
            &settings.events,
            options.unrepresentable,
        );
        findings.push(match template {
            Ok(template) => look(&relation.full_name(), &template.topic, &wanted)?,
            Err(error) => error.into_finding_of(&relation.full_name()),
        });
    }
    Ok(findings)
}
