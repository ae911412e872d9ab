//! Kafka JSON to Delta, end to end, beside what its stages can do alone, measured in one run.
//!
//! `cargo bench --workspace --bench end_to_end -- --records 1000000 --store local`
//!
//! Each measurement is a process of its own. `--freshness` measures how late records become visible at a steady rate
//! instead. `docs/BENCHMARKS.md` explains arguments and figures.

mod asked;
mod batches;
mod flow;
mod freshness;
mod lake;
mod measure;
mod show;
mod stages;
mod topic;

use std::process::ExitCode;

use alluvium_benches::child::{self, Nursery};
use alluvium_benches::report::{end, keep, show};
use alluvium_benches::workload::Workload;
use alluvium_catalog::{Error, Result};
use serde_json::{Value, json};

use asked::Asked;
use topic::FilledTopic;

fn main() -> ExitCode {
    alluvium::heap::settle();
    end(measure())
}

fn measure() -> Result<()> {
    if let Some((task, plan)) = child::task() {
        return measure::be_child(&task, &plan);
    }
    let asked = Asked::read()?;
    if asked.cores.is_some() && !Nursery::can_limit_cores() {
        return Err(Error::unavailable("--cores needs taskset, which is not there").with_hint("it is in util-linux"));
    }
    show(&asked.heading())?;
    let mut results: Vec<Value> = Vec::new();
    for name in &asked.workloads {
        let workload = Workload::open(name)?.with_records(asked.records);
        let result = if asked.freshness {
            freshness::measure(&asked, name, &workload)?
        } else {
            let topic = FilledTopic::find_or_fill(&asked.bootstrap, name, &workload, asked.partitions)?;
            let measured = measure::all(&asked, name, &topic)?;
            show(&show::text(&asked, name, &measured))?;
            show::to_json(&asked, name, &measured)
        };
        results.push(result);
        keep(asked.json.as_deref(), &json!({"asked": asked.to_json(), "results": results}))?;
    }
    Ok(())
}
