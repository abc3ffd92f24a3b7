//! The database in words, for somebody who looks at it: its release, what commits survive, and what is not as it should be.

use liner_proto::id::Class;
use liner_store::look::About;

use crate::error::Failure;
use crate::link::Link;
use crate::open::{IDENTITY, class_of, unlogged};
use crate::schema;
use crate::text::from_column;

const ABOUT: &str = "SELECT current_setting('server_version'), current_setting('synchronous_commit'), current_setting('fsync'),
  pg_is_in_recovery(), (SELECT count(*) FROM quarantine), (SELECT count(*) FROM conn_messages WHERE epoch IS NULL)";

/// Nodes whose commits may be missing: they have begun to deal with that, or will at their next start.
const SUSPECT: &str =
    "SELECT n.name, n.system, EXISTS(SELECT 1 FROM conn_key_map q WHERE q.owner = n.name AND q.suspect)
FROM liner_node n ORDER BY n.name";

pub(crate) fn about(link: &Link) -> Result<About, Failure> {
    let mut about = About { schema: Some(schema::VERSION.into()), ..About::default() };
    let is_standby = match link.query(ABOUT, &[])?.first() {
        None => return Ok(about),
        Some(row) => {
            about.product = format!("PostgreSQL {}", row.try_get::<_, &str>(0)?);
            about.class = Some(class_of(row.try_get(1)?, row.try_get(2)?));
            let [damaged, inserted] = [row.try_get::<_, i64>(4)?, row.try_get::<_, i64>(5)?];
            if damaged > 0 {
                about.advice.push(format!(
                    "{} in the table quarantine did not pass a check: look at their bytes, then DELETE FROM quarantine",
                    rows(damaged)
                ));
            }
            if inserted > 0 {
                about
                    .advice
                    .push(format!("{} inserted by hand: queued when their nodes start", rows(inserted)));
            }
            row.try_get::<_, bool>(3)?
        }
    };
    for table in unlogged(link)? {
        about.class = Some(Class::Ram);
        about
            .advice
            .push(format!("{table} is emptied by a crash of the server: ALTER TABLE {table} SET LOGGED"));
    }
    if is_standby {
        about.advice.push("it is a standby, and no node starts on one: name the primary".to_owned());
        return Ok(about);
    }
    let identity = link.query(IDENTITY, &[])?;
    let identity = identity.first().map(|row| row.try_get::<_, String>(0)).transpose()?.unwrap_or_default();
    for row in link.query(SUSPECT, &[])? {
        if row.try_get::<_, &str>(1)? != identity || row.try_get(2)? {
            let name = from_column(row.try_get(0)?);
            about
                .advice
                .push(format!("commits of {name} may be missing: it says at its start what that means"));
        }
    }
    Ok(about)
}

fn rows(count: i64) -> String {
    if count == 1 { "a row".to_owned() } else { format!("{count} rows") }
}
