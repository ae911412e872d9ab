//! What flows into what: a graph of topics and tables, walked up and down from one of them. Pure.
//!
//! Edges come from the flows as they are defined now, and from commits, which also remember flows that are gone.

use std::collections::BTreeMap;
use std::fmt;

use alluvium_catalog::store::FlowEntry;
use alluvium_catalog::{Commit, Input, Name, Source, TableName, Topic};
use serde_json::{Value, json};

use super::console::{Role, Style};
use super::table::counted;

/// A topic or a table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Node {
    Topic(Topic),
    Table(TableName),
}

/// What a flow carries from one node into a table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Edge {
    from: Node,
    to: TableName,
    flow: Name,
}

/// What commits say of an edge.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Seen {
    commits: u64,
    records: u64,
    /// The newest version that was looked up.
    version: Option<u64>,
}

/// Topics and tables, and what flows between them.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    edges: BTreeMap<Edge, Seen>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}

impl Graph {
    /// Returns the graph of the newest version of each flow and of `commits`.
    pub(crate) fn new(flows: &[FlowEntry], sources: &[Source], commits: &[Commit]) -> Self {
        let mut graph = Self::default();
        let newest: BTreeMap<&Name, &FlowEntry> = flows.iter().map(|entry| (&entry.version.flow, entry)).collect();
        for version in newest.into_values().map(|entry| &entry.version) {
            let topic = sources.iter().find(|source| source.name == version.source).map(|source| source.topic.clone());
            let looked_up = version.lookups.iter().cloned().map(Node::Table);
            for from in topic.map(Node::Topic).into_iter().chain(looked_up) {
                graph.edge(from, &version.table, &version.flow);
            }
        }
        for commit in commits {
            for input in &commit.lineage.inputs {
                graph.observe(commit, input);
            }
        }
        graph
    }

    fn edge(&mut self, from: Node, to: &TableName, flow: &Name) -> &mut Seen {
        self.edges.entry(Edge { from, to: to.clone(), flow: flow.clone() }).or_default()
    }

    fn observe(&mut self, commit: &Commit, input: &Input) {
        let (from, records, version) = match input {
            // A dead-letter commit covers all positions of its batch, and only its rejects go into the table.
            Input::Kafka { topic, .. } => (Node::Topic(topic.clone()), commit.lineage.fate.records_in, None),
            Input::Table { table, version } => (Node::Table(table.clone()), 0, Some(*version)),
            Input::Files { dataset } => (Node::Table(dataset.clone()), 0, None),
        };
        let seen = self.edge(from, &commit.table, &commit.lineage.flow);
        seen.commits += 1;
        seen.records += records;
        seen.version = seen.version.max(version);
    }

    /// Tells whether anything flows into or out of `node`.
    pub(crate) fn contains(&self, node: &Node) -> bool {
        self.edges.keys().any(|edge| edge.from == *node || Node::Table(edge.to.clone()) == *node)
    }

    /// Returns both directions from `node` as trees for people.
    pub(crate) fn render(&self, node: &Node, style: Style) -> String {
        let mut text = format!("{}\n", style.paint(Role::Strong, &node.to_string()));
        for (direction, heading) in [(Direction::Up, "upstream"), (Direction::Down, "downstream")] {
            text.push_str(&format!("{}\n", style.paint(Role::Faint, heading)));
            let mut walk = Walk { graph: self, direction, style, path: vec![node.clone()], text: String::new() };
            walk.below(node, "");
            text.push_str(if walk.text.is_empty() { "  nothing\n" } else { &walk.text });
        }
        text
    }

    /// Returns both directions from `node` as nested JSON.
    pub(crate) fn to_json(&self, node: &Node) -> Value {
        let mut path = vec![node.clone()];
        json!({
            "kind": node.kind(),
            "name": node.name(),
            "upstream": self.nested(node, Direction::Up, &mut path),
            "downstream": self.nested(node, Direction::Down, &mut path),
        })
    }

    fn nested(&self, node: &Node, direction: Direction, path: &mut Vec<Node>) -> Vec<Value> {
        let mut children = Vec::new();
        for (edge, seen, child) in self.next(node, direction) {
            let further = if path.contains(&child) {
                Vec::new()
            } else {
                path.push(child.clone());
                let further = self.nested(&child, direction, path);
                path.pop();
                further
            };
            let further_key = if direction == Direction::Up { "upstream" } else { "downstream" };
            children.push(json!({
                "kind": child.kind(), "name": child.name(), "flow": edge.flow, "role": edge.role(),
                "commits": seen.commits, "records": seen.records, "version": seen.version, further_key: further,
            }));
        }
        children
    }

    /// Returns the edges that begin or end at `node`, each with the node at its other end.
    fn next(&self, node: &Node, direction: Direction) -> Vec<(&Edge, Seen, Node)> {
        let mut next = Vec::new();
        for (edge, seen) in &self.edges {
            let to = Node::Table(edge.to.clone());
            match direction {
                Direction::Up if to == *node => next.push((edge, *seen, edge.from.clone())),
                Direction::Down if edge.from == *node => next.push((edge, *seen, to)),
                _ => {}
            }
        }
        next
    }
}

/// Draws one direction as a tree. A node that is above itself is named and not followed again.
struct Walk<'a> {
    graph: &'a Graph,
    direction: Direction,
    style: Style,
    path: Vec<Node>,
    text: String,
}

impl Walk<'_> {
    fn below(&mut self, node: &Node, indent: &str) {
        let next = self.graph.next(node, self.direction);
        let last = next.len().saturating_sub(1);
        for (index, (edge, seen, child)) in next.into_iter().enumerate() {
            let (branch, bar) = match (self.style.is_terminal, index == last) {
                (true, false) => ("\u{251c}\u{2500} ", "\u{2502}  "),
                (true, true) => ("\u{2514}\u{2500} ", "   "),
                (false, false) => ("|- ", "|  "),
                (false, true) => ("`- ", "   "),
            };
            let is_loop = self.path.contains(&child);
            let note = if is_loop { "see above".to_owned() } else { note(edge, seen) };
            let note = self.style.paint(Role::Faint, &format!("  {note}"));
            self.text.push_str(&format!("  {indent}{branch}{child}{note}\n"));
            if !is_loop {
                self.path.push(child.clone());
                self.below(&child, &format!("{indent}{bar}"));
                self.path.pop();
            }
        }
    }
}

fn note(edge: &Edge, seen: Seen) -> String {
    let flow = &edge.flow;
    match (&edge.from, seen.version) {
        (Node::Topic(_), _) if seen.commits == 0 => format!("by {flow}, nothing landed yet"),
        (Node::Topic(_), _) => {
            format!("by {flow}: {} in {}", counted(seen.records, "record"), counted(seen.commits, "commit"))
        }
        (Node::Table(_), Some(version)) => format!("looked up by {flow}, last at version {version}"),
        (Node::Table(_), None) => format!("looked up by {flow}"),
    }
}

impl Edge {
    fn role(&self) -> &'static str {
        match self.from {
            Node::Topic(_) => "stream",
            Node::Table(_) => "lookup",
        }
    }
}

impl Node {
    fn kind(&self) -> &'static str {
        match self {
            Self::Topic(_) => "topic",
            Self::Table(_) => "table",
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Topic(topic) => topic.to_string(),
            Self::Table(table) => table.to_string(),
        }
    }
}

impl fmt::Display for Node {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.kind(), self.name())
    }
}

#[cfg(test)]
mod tests {
    use alluvium_catalog::{Error, FlowKind, FlowVersion, Result};

    use super::*;

    fn flow(name: &str, table: &str, lookups: &[&str]) -> Result<FlowEntry> {
        let lookups = lookups.iter().map(|lookup| lookup.parse()).collect::<Result<_>>()?;
        let version = FlowVersion {
            flow: name.parse()?,
            kind: FlowKind::Append,
            source: "raw".parse()?,
            table: table.parse()?,
            lookups,
            sql: String::new(),
            sql_hash: String::new(),
            file: String::new(),
            line: 1,
        };
        Ok(FlowEntry { seq: 1, version })
    }

    fn graph() -> Result<Graph> {
        let flows =
            [flow("f", "silver.orders", &["silver.customers"])?, flow("g", "silver.customers", &["silver.orders"])?];
        let source = json!({"name": "raw", "connection": "shop", "topic": "shop.orders", "columns": [], "options": {}, "comment": null});
        let source = serde_json::from_value(source).map_err(|source| Error::internal("source").with_source(source))?;
        Ok(Graph::new(&flows, &[source], &[]))
    }

    #[test]
    fn tables_that_look_each_other_up_end_the_walk() -> Result<()> {
        let node = Node::Table("silver.orders".parse()?);
        let expected = "\
table silver.orders
upstream
  |- topic shop.orders  by f, nothing landed yet
  `- table silver.customers  looked up by f
     |- topic shop.orders  by g, nothing landed yet
     `- table silver.orders  see above
downstream
  `- table silver.customers  looked up by g
     `- table silver.orders  see above
";
        assert_eq!(graph()?.render(&node, Style::default()), expected);
        Ok(())
    }

    #[test]
    fn json_ends_at_loops_too() -> Result<()> {
        let tree = graph()?.to_json(&Node::Table("silver.orders".parse()?));
        assert_eq!(tree.pointer("/upstream/0/name"), Some(&json!("shop.orders")));
        assert_eq!(tree.pointer("/upstream/1/upstream/1/upstream"), Some(&json!([])));
        Ok(())
    }
}
