//! Results as a table and as JSON, and the ratios that the goals are about.

use alluvium_benches::report::{TextTable, grouped, megabytes};
use serde_json::{Map, Value, json};

use crate::asked::Asked;
use crate::flow::FlowKind;
use crate::measure::{All, Measured};
use crate::stages::Stage;

/// Returns the table of a workload.
pub(crate) fn text(asked: &Asked, workload: &str, all: &All) -> String {
    let headings = ["", "rows/s", "MB/s", "CPU us/row", "CPU s", "others' CPU s", "wall s", "peak RSS"];
    let mut table = TextTable::new(&headings);
    for (stage, measured) in &all.stages {
        // The other stages hold all their input.
        let rss = if *stage == Stage::Consume { megabytes(measured.spent.rss_peak_bytes) } else { "-".to_owned() };
        table.row(cells(stage_name(*stage), measured, rss));
    }
    for (kind, measured, _) in &all.runs {
        let name = format!("{}, its four stages added up", kind.as_str());
        table.row(added_up(name, all.stages_cpu_micros(*kind)));
        let name = format!("{}, end to end", kind.as_str());
        table.row(cells(&name, measured, megabytes(measured.spent.rss_peak_bytes)));
    }
    let records = all.run(FlowKind::Append).map_or(0, |measured| measured.records);
    let bytes = all.run(FlowKind::Append).map_or(0, |measured| measured.bytes);
    let each = bytes as f64 / (records as f64).max(1.0);
    let mut text = format!("\n{workload}: {} records of {each:.0} bytes\n\n", grouped(records as f64));
    text.push_str(&table.render());
    text.push('\n');
    let mut ratios_table = TextTable::new(&["ratio", ""]);
    for (name, ratio) in ratios(asked, all) {
        ratios_table.row([name, format!("{ratio:.2}")]);
    }
    text.push_str(&ratios_table.render());
    text.push('\n');
    let mut stages =
        TextTable::new(&["seconds by stage", "fetch", "decode", "transform", "write", "commits", "files", "MB"]);
    for (kind, _, written) in &all.runs {
        stages.row([
            kind.as_str().to_owned(),
            format!("{:.2}", written.fetch_seconds),
            format!("{:.2}", written.decode_seconds),
            format!("{:.2}", written.transform_seconds),
            format!("{:.2}", written.write_seconds),
            grouped(written.commits as f64),
            grouped(written.files as f64),
            format!("{:.1}", written.file_bytes as f64 / 1e6),
        ]);
    }
    text.push_str(&stages.render());
    text.push('\n');
    text.push_str(&bytes_written(all));
    text
}

/// Returns the table of what each run wrote to its table beside the batches' own rows: files in vain, vectors, compactions,
/// the log.
fn bytes_written(all: &All) -> String {
    let headings = [
        "bytes written, MB",
        "batch files",
        "batches discarded",
        "by them",
        "compactions",
        "by them",
        "in all",
        "in all / batch files",
    ];
    let mut table = TextTable::new(&headings);
    let millions = |bytes: u64| format!("{:.1}", bytes as f64 / 1e6);
    for (kind, _, written) in &all.runs {
        table.row([
            kind.as_str().to_owned(),
            millions(written.batch_bytes),
            grouped(written.discards as f64),
            millions(written.discarded_bytes),
            grouped(written.compactions as f64),
            millions(written.compacted_bytes),
            millions(written.bytes()),
            format!("{:.2}", written.amplification()),
        ]);
    }
    table.render()
}

/// Returns the results of a workload for programs.
pub(crate) fn to_json(asked: &Asked, workload: &str, all: &All) -> Value {
    let mut measurements = Map::new();
    for (stage, measured) in &all.stages {
        measurements.insert(stage.as_str().to_owned(), measured_json(measured));
    }
    for (kind, measured, written) in &all.runs {
        let mut value = measured_json(measured);
        if let Some(fields) = value.as_object_mut() {
            fields.insert("written".to_owned(), json!(written));
        }
        measurements.insert(kind.as_str().to_owned(), value);
    }
    let ratios: Map<String, Value> = ratios(asked, all).into_iter().map(|(name, ratio)| (name, json!(ratio))).collect();
    json!({"workload": workload, "measurements": measurements, "ratios": ratios})
}

fn measured_json(measured: &Measured) -> Value {
    json!({
        "records": measured.records,
        "bytes": measured.bytes,
        "spent": measured.spent,
        "rows_per_second": measured.rate(),
        "cpu_micros_per_row": measured.cpu_micros(),
    })
}

/// What a flow may hold beside its index.
const MEMORY_GOAL: f64 = 512e6;

/// What an index may take for a key of 64 bits.
const KEY_BYTES_GOAL: f64 = 24.0;

/// Returns the ratios that can be told, each with its name.
fn ratios(asked: &Asked, all: &All) -> Vec<(String, f64)> {
    let cost = |stage: Stage| all.stage(stage).map_or(0.0, Measured::cpu_micros);
    let libraries = cost(Stage::Consume) + cost(Stage::Decode) + cost(Stage::Encode);
    let mut ratios = Vec::new();
    for (kind, measured, written) in &all.runs {
        let (name, own) = (kind.as_str(), measured.cpu_micros());
        ratios.push((
            format!("{name}: CPU a row / consume + decode + transform + encode"),
            own / all.stages_cpu_micros(*kind),
        ));
        if *kind == FlowKind::Append {
            ratios.push((format!("{name}: CPU a row / consume + decode + encode"), own / libraries));
        }
        let (index, goal) = match kind {
            FlowKind::Append => (0.0, "512 MB"),
            FlowKind::Upsert => (KEY_BYTES_GOAL * written.rows as f64, "512 MB and 24 bytes a key"),
        };
        let peak = measured.spent.rss_peak_bytes as f64;
        ratios.push((format!("{name}: peak RSS / {goal}"), peak / (MEMORY_GOAL + index)));
        let allowed = asked.n_cores() as f64 * 1e6 / own;
        ratios.push((
            format!("{name}: rate / what {} cores allow at that CPU a row", asked.n_cores()),
            measured.rate() / allowed,
        ));
        if asked.cores.is_none() {
            // Broker and store share the machine: what they use meanwhile is not there for us.
            let spent = &measured.spent;
            let left = asked.n_cores() as f64 - spent.others_cpu_seconds / spent.wall_seconds.max(1e-9);
            ratios.push((
                format!("{name}: rate / what the {left:.2} cores allow that broker and others left"),
                measured.rate() * own / 1e6 / left.max(1e-9),
            ));
        }
    }
    if let (Some(append), Some(upsert)) = (all.run(FlowKind::Append), all.run(FlowKind::Upsert)) {
        ratios.push(("upsert rate / append rate".to_owned(), upsert.rate() / append.rate()));
    }
    ratios
}

fn stage_name(stage: Stage) -> &'static str {
    match stage {
        Stage::Consume => "consume only",
        Stage::Decode => "decode only",
        Stage::TransformAppend => "transform only (append)",
        Stage::TransformUpsert => "transform + collapse only (upsert)",
        Stage::Encode => "parquet encode only",
    }
}

/// Returns a row of what stages cost together; there is no time on the wall in which they ran.
fn added_up(name: String, cpu_micros: f64) -> [String; 8] {
    let dash = || "-".to_owned();
    [name, dash(), dash(), format!("{cpu_micros:.2}"), dash(), dash(), dash(), dash()]
}

fn cells(name: &str, measured: &Measured, rss: String) -> [String; 8] {
    let spent = &measured.spent;
    [
        name.to_owned(),
        grouped(measured.rate()),
        format!("{:.1}", measured.bytes as f64 / 1e6 / spent.wall_seconds.max(1e-9)),
        format!("{:.2}", measured.cpu_micros()),
        format!("{:.2}", spent.cpu_seconds),
        format!("{:.2}", spent.others_cpu_seconds),
        format!("{:.2}", spent.wall_seconds),
        rss,
    ]
}
