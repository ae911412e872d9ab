//! Which version of a table a name in a planned query means, carried in the catalog part of the name.
//!
//! `silver.orders VERSION AS OF 41` becomes `"alluvium@41".silver.orders`: columns can still be written
//! `silver.orders.id`, and plans and errors show what is read.

use alluvium_catalog::Timestamp;

use crate::tables::Version;

/// The catalog of tables at their newest version. Equal to that of [`crate::compile::plan::dialect_session`].
pub(crate) const CATALOG: &str = "alluvium";

/// What follows the version where hidden columns are to be seen.
const HIDDEN: &str = "+hidden";

/// Which version of a table is read, and whether its hidden columns are seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pin {
    /// The version.
    pub(crate) version: Version,
    /// Whether hidden columns are seen.
    pub(crate) hidden: bool,
}

impl Pin {
    /// The newest version without hidden columns.
    pub(crate) const NEWEST: Self = Self { version: Version::Latest, hidden: false };

    /// Returns the name of the catalog that stands for this pin.
    pub(crate) fn catalog(self) -> String {
        let version = match self.version {
            Version::Latest => String::new(),
            Version::At(number) => format!("@{number}"),
            Version::AsOf(time) => format!("@{}ms", time.0),
        };
        format!("{CATALOG}{version}{}", if self.hidden { HIDDEN } else { "" })
    }

    /// Returns the pin that a catalog's name stands for.
    pub(crate) fn read(catalog: &str) -> Option<Self> {
        let rest = catalog.strip_prefix(CATALOG)?;
        let (rest, hidden) = rest.strip_suffix(HIDDEN).map_or((rest, false), |rest| (rest, true));
        let version = match rest.strip_prefix('@') {
            None if rest.is_empty() => Version::Latest,
            None => return None,
            Some(text) => match text.strip_suffix("ms") {
                Some(millis) => Version::AsOf(Timestamp(millis.parse().ok()?)),
                None => Version::At(text.parse().ok()?),
            },
        };
        Some(Self { version, hidden })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_read_back_from_its_catalog() {
        for version in [Version::Latest, Version::At(41), Version::AsOf(Timestamp(-5))] {
            for hidden in [false, true] {
                let pin = Pin { version, hidden };
                assert_eq!(Pin::read(&pin.catalog()), Some(pin));
            }
        }
        assert_eq!(Pin::NEWEST.catalog(), CATALOG);
        assert_eq!(Pin::read("other"), None);
        assert_eq!(Pin::read("alluvium@x"), None);
    }
}
