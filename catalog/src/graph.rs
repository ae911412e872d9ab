//! What flows into what: a graph of topics and tables, followed up and down from one of them.
//!
//! Edges come from the flows as they are defined now, and from commits, which also remember flows that are gone. The
//! graph holds one edge for each way that data took, however many commits took it. Before it: the store. After it:
//! whoever draws it, as a tree, as JSON or as rows.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use crate::store::{CatalogStore, FlowEntry};
use crate::{Name, Result, Source, TableName, Topic};

/// A topic or a table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Node {
    /// A topic.
    Topic(Topic),
    /// A table.
    Table(TableName),
}

/// What a flow carries from one node into a table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Edge {
    /// Where it comes from: a topic that is streamed, or a table that is looked up.
    pub from: Node,
    /// Where it goes.
    pub to: TableName,
    /// Who carries it.
    pub flow: Name,
}

/// What commits say of an edge.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// How many commits took it.
    pub commits: u64,
    /// The records that they read from the topic. A dead-letter commit covers all records of its batch.
    pub records: u64,
    /// The newest version of the table that was looked up.
    pub version: Option<u64>,
}

/// Which way to follow edges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To what a node is made from.
    Up,
    /// To what is made from it.
    Down,
}

/// An edge that was followed, the node that it led to, and what lies behind that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Branch {
    /// The edge.
    pub edge: Edge,
    /// What commits say of it.
    pub seen: Seen,
    /// The node at its other end.
    pub node: Node,
    /// Whether the node stands in the tree already and is not followed again: loops end, and what is shared is told once.
    pub is_repeated: bool,
    /// What lies behind it.
    pub below: Vec<Self>,
}

/// Topics and tables, and what flows between them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Graph {
    edges: BTreeMap<Edge, Seen>,
}

impl Graph {
    /// Returns the graph of all that `catalog` knows.
    ///
    /// # Errors
    /// As of the catalog.
    pub async fn load(catalog: &dyn CatalogStore) -> Result<Self> {
        Ok(Self::new(&catalog.flows().await?, &catalog.sources().await?, catalog.traffic().await?))
    }

    /// Returns the graph of the newest version of each of `flows` and of what commits have seen.
    pub fn new(flows: &[FlowEntry], sources: &[Source], traffic: Vec<(Edge, Seen)>) -> Self {
        let mut edges = BTreeMap::new();
        for version in newest_versions(flows).map(|entry| &entry.version) {
            let topic = sources.iter().find(|source| source.name == version.source).map(|source| source.topic.clone());
            let looked_up = version.lookups.iter().cloned().map(Node::Table);
            for from in topic.map(Node::Topic).into_iter().chain(looked_up) {
                edges.insert(Edge { from, to: version.table.clone(), flow: version.flow.clone() }, Seen::default());
            }
        }
        edges.extend(traffic);
        Self { edges }
    }

    /// Tells whether anything flows into or out of `node`.
    pub fn contains(&self, node: &Node) -> bool {
        self.edges.keys().any(|edge| edge.from == *node || edge.leads_to(node))
    }

    /// Returns the node that `name` stands for: a table, a topic, else the table of a flow or the topic of a source.
    ///
    /// # Errors
    /// As of the catalog.
    pub async fn find(&self, name: &str, catalog: &dyn CatalogStore) -> Result<Option<Node>> {
        if let Ok(table) = name.parse::<TableName>() {
            let is_registered = catalog.dataset(&table).await?.is_some();
            let node = Node::Table(table);
            if is_registered || self.contains(&node) {
                return Ok(Some(node));
            }
        }
        if let Some(topic) = name.parse().ok().map(Node::Topic).filter(|topic| self.contains(topic)) {
            return Ok(Some(topic));
        }
        let Ok(word) = name.parse::<Name>() else { return Ok(None) };
        if let Some(newest) = catalog.flow(&word).await?.pop() {
            return Ok(Some(Node::Table(newest.version.table)));
        }
        let source = catalog.sources().await?.into_iter().find(|source| source.name == word);
        Ok(source.map(|source| Node::Topic(source.topic)))
    }

    /// Returns what lies behind `node` in one direction.
    pub fn tree(&self, node: &Node, direction: Direction) -> Vec<Branch> {
        self.below(node, direction, &mut BTreeSet::from([node.clone()]))
    }

    fn below(&self, node: &Node, direction: Direction, told: &mut BTreeSet<Node>) -> Vec<Branch> {
        let next = self.edges.iter().filter_map(|(edge, seen)| match direction {
            Direction::Up if edge.leads_to(node) => Some((edge, seen, edge.from.clone())),
            Direction::Down if edge.from == *node => Some((edge, seen, Node::Table(edge.to.clone()))),
            Direction::Up | Direction::Down => None,
        });
        let mut branches = Vec::new();
        for (edge, seen, node) in next {
            let is_repeated = !told.insert(node.clone());
            let below = if is_repeated { Vec::new() } else { self.below(&node, direction, told) };
            branches.push(Branch { edge: edge.clone(), seen: *seen, node, is_repeated, below });
        }
        branches
    }
}

/// Returns the newest version of each flow; `flows` is ordered by flow and place, as the store gives it.
pub fn newest_versions(flows: &[FlowEntry]) -> impl Iterator<Item = &FlowEntry> {
    flows.chunk_by(|left, right| left.version.flow == right.version.flow).filter_map(<[FlowEntry]>::last)
}

impl Edge {
    /// Returns how the flow reads what the edge comes from.
    pub fn role(&self) -> &'static str {
        match self.from {
            Node::Topic(_) => "stream",
            Node::Table(_) => "lookup",
        }
    }

    fn leads_to(&self, node: &Node) -> bool {
        matches!(node, Node::Table(table) if *table == self.to)
    }
}

impl Node {
    /// Returns the word for what it is.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Topic(_) => "topic",
            Self::Table(_) => "table",
        }
    }

    /// Returns its name without its kind.
    pub fn name(&self) -> String {
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
    use super::*;
    use crate::{FlowKind, FlowVersion};

    fn edge(from: Node, to: &str, flow: &str) -> Result<Edge> {
        Ok(Edge { from, to: to.parse()?, flow: flow.parse()? })
    }

    fn table(name: &str) -> Result<Node> {
        Ok(Node::Table(name.parse()?))
    }

    /// Writes a tree as `name(below, ..)`, with a star at what is not followed again.
    fn drawn(branches: &[Branch]) -> String {
        let drawn: Vec<String> = branches
            .iter()
            .map(|branch| {
                let star = if branch.is_repeated { "*" } else { "" };
                let below = drawn(&branch.below);
                let below = if below.is_empty() { below } else { format!("({below})") };
                format!("{}{star}{below}", branch.node.name())
            })
            .collect();
        drawn.join(", ")
    }

    #[test]
    fn a_loop_ends_and_what_is_shared_is_followed_once() -> Result<()> {
        let topic = Node::Topic("shop.orders".parse()?);
        let traffic = [
            edge(topic.clone(), "silver.a", "f")?,
            edge(table("silver.b")?, "silver.a", "f")?,
            edge(table("silver.c")?, "silver.a", "f")?,
            edge(table("silver.a")?, "silver.b", "g")?,
            edge(table("silver.d")?, "silver.b", "g")?,
            edge(table("silver.d")?, "silver.c", "h")?,
            edge(topic.clone(), "silver.d", "i")?,
        ];
        let graph = Graph::new(&[], &[], traffic.into_iter().map(|edge| (edge, Seen::default())).collect());
        let up = graph.tree(&table("silver.a")?, Direction::Up);
        assert_eq!(drawn(&up), "shop.orders, silver.b(silver.a*, silver.d(shop.orders*)), silver.c(silver.d*)");
        let down = graph.tree(&topic, Direction::Down);
        assert_eq!(drawn(&down), "silver.a(silver.b(silver.a*)), silver.d(silver.b*, silver.c(silver.a*))");
        Ok(())
    }

    #[test]
    fn edges_are_those_of_the_newest_versions_and_of_commits() -> Result<()> {
        let version = |seq: u64, lookup: &str| -> Result<FlowEntry> {
            let version = FlowVersion {
                flow: "f".parse()?,
                kind: FlowKind::Append,
                source: "raw".parse()?,
                table: "silver.a".parse()?,
                lookups: vec![lookup.parse()?],
                sql: String::new(),
                sql_hash: seq.to_string(),
                file: String::new(),
                line: 1,
            };
            Ok(FlowEntry { seq, version })
        };
        let gone = edge(Node::Topic("old.orders".parse()?), "silver.a", "gone")?;
        let seen = Seen { commits: 3, records: 40, version: None };
        let graph = Graph::new(&[version(1, "silver.old")?, version(2, "silver.new")?], &[], vec![(gone, seen)]);
        let up = graph.tree(&table("silver.a")?, Direction::Up);
        assert_eq!(drawn(&up), "old.orders, silver.new");
        assert_eq!(up.first().map(|branch| branch.seen), Some(seen));
        assert!(graph.contains(&table("silver.new")?) && !graph.contains(&table("silver.old")?));
        Ok(())
    }
}
