//! Reads folders of parquet, CSV or JSON files as one table.

use std::sync::Arc;

use alluvium_catalog::{DatasetKind, Error, Location, Result};
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::csv::CsvFormat;
use datafusion::datasource::file_format::json::JsonFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl};

use crate::compile::plan::INT96_UNIT;
use crate::session::failure;

/// Opens the files of `kind` below `location`; the folder's store must be registered.
///
/// # Errors
/// As [`super::TableReader::open_files`].
pub(super) async fn open(
    kind: DatasetKind,
    location: &Location,
    session: &dyn Session,
) -> Result<Arc<dyn TableProvider>> {
    let (format, extension) = format_of(kind, location)?;
    let fail = |cause| failure::from_datafusion(format!("cannot read the {extension} files at {location}"), cause);
    let url = ListingTableUrl::parse(location.url()?).map_err(fail)?;
    let options = ListingOptions::new(format).with_file_extension(format!(".{extension}"));
    let schema = options.infer_schema(session, &url).await.map_err(fail)?;
    if schema.fields().is_empty() {
        return Err(Error::invalid(format!("there are no .{extension} files with columns at {location}")));
    }
    let config = ListingTableConfig::new(url).with_listing_options(options).with_schema(schema);
    Ok(Arc::new(ListingTable::try_new(config).map_err(fail)?))
}

fn format_of(kind: DatasetKind, location: &Location) -> Result<(Arc<dyn FileFormat>, &'static str)> {
    match kind {
        DatasetKind::Parquet => {
            let format = ParquetFormat::default().with_force_view_types(false);
            Ok((Arc::new(format.with_coerce_int96(Some(INT96_UNIT.to_owned()))), "parquet"))
        }
        DatasetKind::Csv => Ok((Arc::new(CsvFormat::default().with_has_header(true)), "csv")),
        DatasetKind::Json => Ok((Arc::new(JsonFormat::default()), "json")),
        DatasetKind::Delta | DatasetKind::DeadLetter => {
            Err(Error::internal(format!("the Delta table at {location} was asked for as files")))
        }
    }
}
