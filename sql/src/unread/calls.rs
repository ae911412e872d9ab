//! Finds what DataFusion's planner drops of a call of a function.
//!
//! That is what only aggregates take, where the function is none; the window that another one is made of; and a window's name
//! where no name is looked up. Nothing here knows what is dropped of a query around its calls.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::LazyLock;

use datafusion::execution::SessionStateDefaults;
use datafusion::sql::sqlparser::ast::{
    DuplicateTreatment, Expr, Function, FunctionArgumentClause, FunctionArguments, NamedWindowDefinition,
    NamedWindowExpr, Query, Visit, Visitor, WindowType,
};

use super::Clause;

/// The words for a window that begins as another one.
const OF_ANOTHER: &str = "a window made of another one";

/// What does instead of a window's name.
const IN_FULL: &str = "write the window in full: OVER (PARTITION BY .. ORDER BY ..)";

/// The names of functions of one row. The planner looks there first, and reads nothing of the call but its arguments.
static OF_ONE_ROW: LazyLock<HashSet<String>> = LazyLock::new(|| {
    let functions = SessionStateDefaults::default_scalar_functions();
    functions.iter().flat_map(|function| names(function.name(), function.aliases())).collect()
});

/// The names of functions of a window that are no aggregates: each row of the window counts for them.
static OF_A_WINDOW: LazyLock<HashSet<String>> = LazyLock::new(|| {
    let functions = SessionStateDefaults::default_window_functions();
    functions.iter().flat_map(|function| names(function.name(), function.aliases())).collect()
});

fn names<'a>(name: &'a str, aliases: &'a [String]) -> impl Iterator<Item = String> + 'a {
    std::iter::once(name).chain(aliases.iter().map(String::as_str)).map(str::to_owned)
}

/// Returns the clauses of a call that may be lost, and whether they are.
pub(super) fn clauses(function: &Function) -> [Clause; 7] {
    const WITHIN: &str = "write it behind the aggregate or the window function within the call";
    const CASE: &str = "write an aggregate of CASE WHEN .. THEN .. END with the same OVER";
    let name = called(function);
    let is_of_one_row = OF_ONE_ROW.contains(&name);
    let is_of_a_window = !is_of_one_row && function.over.is_some() && OF_A_WINDOW.contains(&name);
    let (is_distinct, orders_arguments) = match &function.args {
        FunctionArguments::List(list) => (
            list.duplicate_treatment == Some(DuplicateTreatment::Distinct),
            list.clauses.iter().any(|clause| matches!(clause, FunctionArgumentClause::OrderBy(_))),
        ),
        FunctionArguments::None | FunctionArguments::Subquery(_) => (false, false),
    };
    let is_ordered = orders_arguments || !function.within_group.is_empty();
    let is_on_another = matches!(&function.over, Some(WindowType::WindowSpec(window)) if window.window_name.is_some());
    [
        (is_of_one_row && function.over.is_some(), "OVER of a function of one row", WITHIN),
        (is_of_one_row && function.filter.is_some(), "FILTER of a function of one row", WITHIN),
        (is_of_one_row && is_distinct, "DISTINCT in a function of one row", WITHIN),
        (is_of_one_row && is_ordered, "ORDER BY in a function of one row", WITHIN),
        (is_of_a_window && (function.filter.is_some() || is_distinct), "FILTER or DISTINCT of a window function", CASE),
        (function.parameters != FunctionArguments::None, "a call with two lists of arguments", "write one list"),
        (is_on_another, OF_ANOTHER, IN_FULL),
    ]
}

/// Returns `clause`, which is there where `part`, outside of its subqueries, names a window of the WINDOW clause. Names are
/// looked up in SELECT alone; elsewhere the call is taken for one without OVER.
pub(super) fn named_window(part: &impl Visit, clause: &'static str) -> Clause {
    let is_named = |call: &Function| match call.over {
        Some(WindowType::NamedWindow(_)) => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    };
    (own_calls(part, is_named).is_break(), clause, IN_FULL)
}

/// Returns whether one of `windows` begins as another one.
pub(super) fn window_of_another(windows: &[NamedWindowDefinition]) -> Clause {
    let is_of_another = |NamedWindowDefinition(_, window): &NamedWindowDefinition| match window {
        NamedWindowExpr::WindowSpec(window) => window.window_name.is_some(),
        NamedWindowExpr::NamedWindow(_) => true,
    };
    (windows.iter().any(is_of_another), OF_ANOTHER, IN_FULL)
}

/// Returns the name by which the planner looks the function up.
pub(crate) fn called(function: &Function) -> String {
    match function.name.0.as_slice() {
        [part] => match part.as_ident() {
            Some(ident) if ident.quote_style.is_some() => ident.value.clone(),
            _ => part.to_string().to_lowercase(),
        },
        _ => function.name.to_string(),
    }
}

/// Gives `each` the calls in `part`, but for those in its subqueries, until it breaks.
pub(crate) fn own_calls(part: &impl Visit, each: impl FnMut(&Function) -> ControlFlow<()>) -> ControlFlow<()> {
    part.visit(&mut OwnCalls { depth: 0, each })
}

struct OwnCalls<F> {
    depth: usize,
    each: F,
}

impl<F: FnMut(&Function) -> ControlFlow<()>> Visitor for OwnCalls<F> {
    type Break = ();

    fn pre_visit_query(&mut self, _query: &Query) -> ControlFlow<()> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expression: &Expr) -> ControlFlow<()> {
        match expression {
            Expr::Function(call) if self.depth == 0 => (self.each)(call),
            _ => ControlFlow::Continue(()),
        }
    }
}
