//! Draws what flows into what, as two trees for people or nested JSON. The graph and the way through it are the catalog's.

use alluvium_catalog::{Branch, Direction, Graph, Node, Seen};
use serde_json::{Value, json};

use super::console::{Role, Style};
use super::table::counted;

/// Returns both directions from `node` as trees for people.
pub(super) fn render(graph: &Graph, node: &Node, style: Style) -> String {
    let mut text = format!("{}\n", style.paint(Role::Strong, &node.to_string()));
    for (direction, heading) in [(Direction::Up, "upstream"), (Direction::Down, "downstream")] {
        text.push_str(&format!("{}\n", style.paint(Role::Faint, heading)));
        let tree = graph.tree(node, direction);
        if tree.is_empty() {
            text.push_str("  nothing\n");
        }
        draw(&tree, "", style, &mut text);
    }
    text
}

/// Returns both directions from `node` as nested JSON.
pub(super) fn to_json(graph: &Graph, node: &Node) -> Value {
    json!({
        "kind": node.kind(),
        "name": node.name(),
        "upstream": nested(&graph.tree(node, Direction::Up), "upstream"),
        "downstream": nested(&graph.tree(node, Direction::Down), "downstream"),
    })
}

fn nested(branches: &[Branch], further: &str) -> Vec<Value> {
    let branch = |branch: &Branch| {
        let Seen { commits, records, version } = branch.seen;
        json!({
            "kind": branch.node.kind(), "name": branch.node.name(), "flow": branch.edge.flow, "role": branch.edge.role(),
            "commits": commits, "records": records, "version": version,
            "repeated": branch.is_repeated, further: nested(&branch.below, further),
        })
    };
    branches.iter().map(branch).collect()
}

fn draw(branches: &[Branch], indent: &str, style: Style, text: &mut String) {
    let last = branches.len().saturating_sub(1);
    for (index, branch) in branches.iter().enumerate() {
        let (fork, bar) = match (style.is_terminal, index == last) {
            (true, false) => ("\u{251c}\u{2500} ", "\u{2502}  "),
            (true, true) => ("\u{2514}\u{2500} ", "   "),
            (false, false) => ("|- ", "|  "),
            (false, true) => ("`- ", "   "),
        };
        let note = style.paint(Role::Faint, &format!("  {}", note(branch)));
        text.push_str(&format!("  {indent}{fork}{}{note}\n", branch.node));
        draw(&branch.below, &format!("{indent}{bar}"), style, text);
    }
}

fn note(branch: &Branch) -> String {
    let (flow, seen) = (&branch.edge.flow, branch.seen);
    let note = match (&branch.edge.from, seen.version) {
        (Node::Topic(_), _) if seen.commits == 0 => format!("by {flow}, nothing landed yet"),
        (Node::Topic(_), _) => {
            format!("by {flow}: {} in {}", counted(seen.records, "record"), counted(seen.commits, "commit"))
        }
        (Node::Table(_), Some(version)) => format!("looked up by {flow}, last at version {version}"),
        (Node::Table(_), None) => format!("looked up by {flow}"),
    };
    if branch.is_repeated { format!("{note}, see above") } else { note }
}

#[cfg(test)]
mod tests {
    use alluvium_catalog::store::FlowEntry;
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
        Ok(Graph::new(&flows, &[source], Vec::new()))
    }

    #[test]
    fn tables_that_look_each_other_up_end_the_walk() -> Result<()> {
        let node = Node::Table("silver.orders".parse()?);
        let expected = "\
table silver.orders
upstream
  |- topic shop.orders  by f, nothing landed yet
  `- table silver.customers  looked up by f
     |- topic shop.orders  by g, nothing landed yet, see above
     `- table silver.orders  looked up by g, see above
downstream
  `- table silver.customers  looked up by g
     `- table silver.orders  looked up by f, see above
";
        assert_eq!(render(&graph()?, &node, Style::default()), expected);
        Ok(())
    }

    #[test]
    fn json_ends_at_loops_too() -> Result<()> {
        let tree = to_json(&graph()?, &Node::Table("silver.orders".parse()?));
        assert_eq!(tree.pointer("/upstream/0/name"), Some(&json!("shop.orders")));
        assert_eq!(tree.pointer("/upstream/1/upstream/1/repeated"), Some(&json!(true)));
        assert_eq!(tree.pointer("/upstream/1/upstream/1/upstream"), Some(&json!([])));
        Ok(())
    }
}
