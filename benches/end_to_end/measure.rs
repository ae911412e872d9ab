//! Takes the measurements of a workload, each in a child of its own: stages alone, then whole runs.

use std::path::{Path, PathBuf};

use alluvium::cli::console::Console;
use alluvium::config::Environment;
use alluvium_benches::child::{self, Nursery};
use alluvium_benches::meter::{Meter, Spent};
use alluvium_catalog::{Error, Location, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::asked::Asked;
use crate::flow::{self, Batches, FlowKind};
use crate::lake::{Lake, Written};
use crate::stages::{self, Stage};
use crate::topic::FilledTopic;

/// The task of a child that runs a whole flow.
pub(crate) const RUN: &str = "run";

/// Stages other than the source work on records in memory, at most so many.
const RECORDS_IN_MEMORY_MAX: u64 = 1_000_000;

/// What a child is to do.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) workload: String,
    pub(crate) records: u64,
    pub(crate) sql: PathBuf,
    pub(crate) warehouse: Location,
    /// Where the answer goes.
    pub(crate) answer: PathBuf,
    /// The command line of a whole run.
    pub(crate) arguments: Vec<String>,
}

/// What a child found.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) records: u64,
    /// Bytes of the records' values; 0 where the child does not see them.
    pub(crate) bytes: u64,
    pub(crate) spent: Spent,
}

/// All measurements of a workload.
#[derive(Debug)]
pub(crate) struct All {
    pub(crate) stages: Vec<(Stage, Measured)>,
    pub(crate) runs: Vec<(FlowKind, Measured, Written)>,
}

impl Measured {
    pub(crate) fn rate(&self) -> f64 {
        self.records as f64 / self.spent.wall_seconds.max(1e-9)
    }

    /// Returns CPU microseconds a record.
    pub(crate) fn cpu_micros(&self) -> f64 {
        self.spent.cpu_seconds * 1e6 / (self.records as f64).max(1.0)
    }
}

impl All {
    pub(crate) fn stage(&self, wanted: Stage) -> Option<&Measured> {
        self.stages.iter().find(|(stage, _)| *stage == wanted).map(|(_, measured)| measured)
    }

    /// Returns CPU microseconds a record of the stages of a flow, each alone, added up.
    pub(crate) fn stages_cpu_micros(&self, kind: FlowKind) -> f64 {
        let stages = Stage::of(kind);
        stages.iter().filter_map(|stage| self.stage(*stage)).map(Measured::cpu_micros).sum()
    }

    pub(crate) fn run(&self, wanted: FlowKind) -> Option<&Measured> {
        self.runs.iter().find(|(kind, ..)| *kind == wanted).map(|(_, measured, _)| measured)
    }
}

/// Does what a plan says and writes the answer.
pub(crate) fn be_child(task: &str, plan: &Path) -> Result<()> {
    let plan: Plan = child::read_json(plan)?;
    let measured = if task == RUN { run(&plan)? } else { stages::measure(task.parse()?, &plan)? };
    child::write_json(&plan.answer, &measured)
}

/// Runs the program as its binary does.
fn run(plan: &Plan) -> Result<Measured> {
    let environment = Environment::new(std::env::vars_os());
    let console = Console::standard(&environment);
    let meter = Meter::start()?;
    let exit = alluvium::cli::main(plan.arguments.iter().map(Into::into), &environment, console);
    let spent = meter.stop()?;
    if exit.code() != 0 {
        return Err(Error::internal(format!("alluvium ended with {}", exit.code())));
    }
    Ok(Measured { spent, ..Measured::default() })
}

/// Measures everything; of several rounds the one with the least time on the wall counts.
pub(crate) fn all(asked: &Asked, workload: &str, topic: &FilledTopic) -> Result<All> {
    let runtime = stages::runtime()?;
    let mut all = All { stages: Vec::new(), runs: Vec::new() };
    for _ in 0..asked.rounds {
        let lake = Lake::open(asked)?;
        let crew = Crew { asked, workload, topic, lake: &lake };
        for stage in Stage::ALL {
            let measured = crew.stage(stage)?;
            match all.stages.iter_mut().find(|(known, _)| *known == stage) {
                Some((_, best)) if best.spent.wall_seconds <= measured.spent.wall_seconds => {}
                Some((_, best)) => *best = measured,
                None => all.stages.push((stage, measured)),
            }
        }
        for kind in [FlowKind::Append, FlowKind::Upsert] {
            let measured = crew.run(kind)?;
            let written = runtime.block_on(lake.written(&kind.table()))?;
            match all.runs.iter_mut().find(|(known, ..)| *known == kind) {
                Some((_, best, _)) if best.spent.wall_seconds <= measured.spent.wall_seconds => {}
                Some(best) => *best = (kind, measured, written),
                None => all.runs.push((kind, measured, written)),
            }
        }
        runtime.block_on(lake.remove())?;
    }
    // Only the child that reads the topic sees the bytes of its records.
    let bytes = all.stage(Stage::Consume).map_or(0, |measured| measured.bytes);
    all.runs.iter_mut().for_each(|(_, measured, _)| measured.bytes = bytes);
    Ok(all)
}

/// Who starts children over one lake.
struct Crew<'a> {
    asked: &'a Asked,
    workload: &'a str,
    topic: &'a FilledTopic,
    lake: &'a Lake,
}

impl Crew<'_> {
    fn stage(&self, stage: Stage) -> Result<Measured> {
        let mut plan = plan(self.asked, self.lake, stage.flow(), &self.topic.name, Batches::default())?;
        plan.workload = self.workload.to_owned();
        plan.records = self.topic.records;
        if stage != Stage::Consume {
            plan.records = plan.records.min(RECORDS_IN_MEMORY_MAX);
        }
        self.child(stage.as_str(), &plan)
    }

    fn run(&self, kind: FlowKind) -> Result<Measured> {
        let mut plan = plan(self.asked, self.lake, kind, &self.topic.name, Batches::default())?;
        plan.arguments.extend(["--once".to_owned(), "--json".to_owned()]);
        let mut measured = self.child(RUN, &plan)?;
        let summary: Value = child::read_json(&self.lake.file("plan.out"))?;
        let landed = summary.pointer("/flows/0/fate/records_in").and_then(Value::as_u64);
        if landed != Some(self.topic.records) {
            return Err(Error::internal(format!("{landed:?} of {} records landed: {summary}", self.topic.records)));
        }
        measured.records = self.topic.records;
        Ok(measured)
    }

    fn child(&self, task: &str, plan: &Plan) -> Result<Measured> {
        let file = self.lake.file("plan.json");
        child::write_json(&file, plan)?;
        nursery(self.asked, self.lake).run(task, &file)?;
        child::read_json(&plan.answer)
    }
}

/// Returns how children over `lake` are started.
pub(crate) fn nursery(asked: &Asked, lake: &Lake) -> Nursery {
    Nursery { cores: asked.cores, variables: lake.variables() }
}

/// Writes a flow's SQL file and the settings, and returns the plan to run it.
pub(crate) fn plan(asked: &Asked, lake: &Lake, kind: FlowKind, topic: &str, batches: Batches) -> Result<Plan> {
    let write = |name: &str, text: String| {
        let file = lake.file(name);
        std::fs::write(&file, text)
            .map_err(|cause| Error::unavailable(format!("cannot write {}", file.display())).with_source(cause))?;
        Ok::<_, Error>(file)
    };
    let batches = Batches { rows: batches.rows.or(asked.batch_rows), ..batches };
    let sql = write(&format!("{}.sql", kind.as_str()), flow::sql(kind, &asked.bootstrap, topic, batches))?;
    // The catalog lies on the local disk wherever the tables are, as it does for a user.
    let catalog = lake.file("catalog.db");
    let settings = format!(
        "warehouse = \"{}\"\ncatalog = \"{}\"\n\n[listen]\nmetrics = \"off\"\n\n{}",
        lake.warehouse,
        catalog.display(),
        asked.settings
    );
    let settings = write("alluvium.toml", settings)?;
    let words = ["alluvium", "--config", &settings.display().to_string(), "run", &sql.display().to_string()];
    Ok(Plan {
        workload: String::new(),
        records: 0,
        arguments: words.iter().map(|word| (*word).to_owned()).collect(),
        sql,
        warehouse: lake.warehouse.clone(),
        answer: lake.folder().join("answer.json"),
    })
}
