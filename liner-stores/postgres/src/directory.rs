//! The directory as all nodes share it, and the leases beside it.

use liner_proto::router::{DirectoryRows, Standing};
use tokio_postgres::types::Type;

use crate::PostgresStore;
use crate::columns::of;
use crate::error::Failure;
use crate::text::from_column;

/// Renews the lease when a third of it has passed, and tells the version of the directory and whose leases run. As long as there is
/// nothing to renew it only reads: a statement that may conflict locks the row, which is written and flushed.
const VERSION: &str = "WITH renewed AS (
  UPDATE liner_lease SET until = clock_timestamp() + $2 * interval '1 second'
  WHERE name = $1 AND until < clock_timestamp() + $2 * interval '1 second' * 2 / 3),
made AS (
  INSERT INTO liner_lease(name, until) SELECT $1, clock_timestamp() + $2 * interval '1 second'
  WHERE NOT EXISTS(SELECT 1 FROM liner_lease WHERE name = $1) ON CONFLICT(name) DO NOTHING)
SELECT coalesce((SELECT version FROM liner_directory WHERE id = 1), 0),
  (SELECT md5(string_agg(name, ' ' ORDER BY name)) FROM liner_lease
   WHERE name <> $1 AND until > clock_timestamp())";

const ROWS: &str = "SELECT topic, addr, client_name FROM topic_addr";

const LEASES: &str = "SELECT name, until > clock_timestamp() OR name = $1 FROM liner_lease";

/// The directory as it was told last: its version, and whose leases ran.
pub(crate) type Told = (i64, Option<String>);

impl PostgresStore {
    /// The rows, if they or the leases are others than when this was asked last.
    pub(crate) fn read_directory(&mut self) -> Result<Option<DirectoryRows>, Failure> {
        let name = self.name.clone();
        let lease = liner_proto::store::LEASE.as_secs_f64();
        let params = [of(&name, Type::TEXT), of(&lease, Type::FLOAT8)];
        let link = self.linked()?;
        let versions = link.query(VERSION, &params)?;
        let told: Told = match versions.first() {
            Some(row) => (row.try_get(0)?, row.try_get(1)?),
            None => (0, None),
        };
        if self.told.as_ref() == Some(&told) {
            return Ok(None);
        }
        let mut rows = DirectoryRows::default();
        for row in self.linked()?.query(ROWS, &[])? {
            let (topic, address) = (from_column(row.try_get(0)?), from_column(row.try_get(1)?));
            rows.push(&topic, &address, &from_column(row.try_get(2)?));
        }
        for row in self.linked()?.query(LEASES, &[of(&name, Type::TEXT)])? {
            let standing = if row.try_get(1)? { Standing::Up } else { Standing::Away };
            rows.set_standing(&from_column(row.try_get(0)?), standing);
        }
        self.told = Some(told);
        Ok(Some(rows))
    }
}
