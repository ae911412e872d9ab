//! `TableProvider::scan` written out, for the sake of the compiler.
//!
//! `async_trait` gives each reference of a method a lifetime of its own. Under such bounds the compiler keeps no proof that
//! DataFusion's trees of statements and expressions are `Send`, and proves it anew for each method whose future holds one:
//! two to four seconds each (Rust 1.95), which was half of what it took to check this crate. With one lifetime the proof
//! is kept. So a method of such a trait whose future would hold a tree awaits a future that is boxed elsewhere, by a
//! function of one lifetime.

use std::sync::Arc;

use datafusion::error::Result;
use datafusion::physical_plan::ExecutionPlan;
use futures::future::BoxFuture;

/// A plan that is being made.
pub(crate) type BoxPlan<'plan> = BoxFuture<'plan, Result<Arc<dyn ExecutionPlan>>>;

/// Stands for `scan` in an `impl TableProvider for $provider`: its async function `$plan` makes the plan.
macro_rules! scan_by {
    ($provider:ident::$plan:ident) => {
        fn scan<'provider, 'session, 'projection, 'filters, 'plan>(
            &'provider self,
            session: &'session dyn ::datafusion::catalog::Session,
            projection: Option<&'projection Vec<usize>>,
            filters: &'filters [::datafusion::logical_expr::Expr],
            limit: Option<usize>,
        ) -> $crate::scan_by::BoxPlan<'plan>
        where
            'provider: 'plan,
            'session: 'plan,
            'projection: 'plan,
            'filters: 'plan,
            Self: 'plan,
        {
            fn boxed<'plan>(
                provider: &'plan $provider,
                session: &'plan dyn ::datafusion::catalog::Session,
                projection: Option<&'plan Vec<usize>>,
                filters: &'plan [::datafusion::logical_expr::Expr],
                limit: Option<usize>,
            ) -> $crate::scan_by::BoxPlan<'plan> {
                Box::pin(provider.$plan(session, projection, filters, limit))
            }
            boxed(self, session, projection, filters, limit)
        }
    };
}

pub(crate) use scan_by;
