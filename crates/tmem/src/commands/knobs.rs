//! `tmem get` and `tmem set`.

use std::collections::BTreeMap;

use clap::Args;
use tmem_control::{AdminClient, AdminError, ControlError, KnobChanges, KnobInfo};

use super::print;
use crate::{
    Outcome,
    failure::Failure,
    table::{Align, Table},
};

/// `tmem get`.
#[derive(Args)]
pub(crate) struct GetArguments {
    /// Only this one's value
    #[arg(value_name = "KNOB")]
    name: Option<String>,
    /// The daemon's JSON instead of a table
    #[arg(long, conflicts_with = "name")]
    json: bool,
}

/// `tmem set`.
#[derive(Args)]
pub(crate) struct SetArguments {
    /// What to change; all or nothing
    #[arg(value_name = "KNOB=VALUE", required = true, value_parser = change)]
    changes: Vec<(String, String)>,
}

fn change(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write KNOB=VALUE; `tmem get` lists all knobs")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Shows them.
pub(crate) fn get(arguments: &GetArguments, client: &AdminClient) -> Outcome {
    if arguments.json {
        return print(&client.knobs_json()?);
    }
    let knobs = client.knobs()?.knobs;
    let Some(name) = &arguments.name else { return print(&table(knobs)) };
    match knobs.iter().find(|knob| knob.name == *name) {
        Some(knob) => print(&format!("{}\n", knob.value)),
        None => Err(Failure::Usage(format!("there is no knob `{name}`; `tmem get` lists all knobs"))),
    }
}

/// Changes them.
pub(crate) fn set(arguments: SetArguments, client: &AdminClient) -> Outcome {
    let mut knobs = BTreeMap::new();
    for (name, value) in arguments.changes {
        if knobs.contains_key(&name) {
            return Err(Failure::Usage(format!("{name} is given twice: give it once; nothing was changed")));
        }
        knobs.insert(name, value);
    }
    match client.set_knobs(&KnobChanges { knobs }) {
        Err(ControlError::Admin(AdminError::Invalid(text))) => Err(Failure::Usage(text)),
        other => Ok(other.map(|_| ())?),
    }
}

fn table(knobs: Vec<KnobInfo>) -> String {
    let columns = ["KNOB", "VALUE", "UNIT", "RANGE", "DEFAULT", "EFFECT"].map(|name| (name, Align::Left));
    let mut table = Table::new(&columns);
    for KnobInfo { name, value, unit, range, default, effect } in knobs {
        table.row(vec![name, value, unit, range, default, effect]);
    }
    table.render()
}
