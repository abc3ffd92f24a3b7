//! How a file is, in words: its release, its class, and what to do about it.

use liner_proto::id::Class;
use liner_store::look::{About, Held};
use rusqlite::Connection;

use crate::look::{Look, LookError};
use crate::{ballast, deliveries, schema};

impl Look {
    /// What kind of file it is, how its commits fare, and what to do about it. Reads all of it.
    ///
    /// # Errors
    /// That it is damaged, or what the database says.
    pub fn about(&self) -> Result<About, LookError> {
        self.check_pages()?;
        let nodes = self.said(last_uses(self.conn()))?;
        // A backup has been used by none yet.
        let class = nodes.iter().filter(|node| !node.is_backup).map(|node| node.class).min();
        let mut about = About {
            product: format!("SQLite {}", rusqlite::version()),
            schema: Some(schema::VERSION),
            class,
            advice: Vec::new(),
        };
        let mut add = |words: String| about.advice.push(words);
        for node in &nodes {
            if let Some(words) = node.advice(self.is_running(&node.name)) {
                add(words);
            }
        }
        let [damaged, inserted] = self.said(rows_to_look_at(self.conn()))?;
        if damaged > 0 {
            add(format!(
                "{} in the table quarantine did not pass a check: look at their bytes, then DELETE FROM quarantine",
                rows(damaged)
            ));
        }
        if inserted > 0 {
            add(format!("{} inserted by hand: queued when their nodes start", rows(inserted)));
        }
        if !ballast::path_of(self.path()).exists() && nodes.iter().any(|node| self.is_running(&node.name)) {
            add("the ballast beside the file is given up: make room on the disk".to_owned());
        }
        Ok(about)
    }

    /// What is put aside and what waits in the inbox of a node.
    ///
    /// # Errors
    /// What the database says.
    pub fn held(&self, owner: &str) -> Result<Held, LookError> {
        let sql = "SELECT count(*) FROM dead_letters WHERE owner = ?1";
        let dead_letters = self.conn().query_row(sql, [owner], |row| row.get(0).map(i64::cast_unsigned));
        let inbox = self.said(deliveries::held(self.conn(), owner))?;
        Ok(Held { dead_letters: self.said(dead_letters)?, deliveries: inbox.messages })
    }
}

fn rows(count: u64) -> String {
    if count == 1 { "a row".to_owned() } else { format!("{count} rows") }
}

/// How a node was last opened.
struct LastUse {
    name: String,
    class: Class,
    /// It was closed.
    is_clean: bool,
    /// Commits may be missing, and it has not started since.
    is_suspect: bool,
    is_backup: bool,
}

impl LastUse {
    fn advice(&self, is_running: bool) -> Option<String> {
        let name = &self.name;
        if self.is_backup {
            return Some(format!(
                "{name} is as it was when this backup was made: start it here only if the original is lost, and never both"
            ));
        }
        if self.is_suspect {
            return Some(format!("commits of {name} may be missing: it says at its start what that means"));
        }
        if self.class != Class::Power {
            return Some(format!(
                "what {name} stores survives the death of its process, and not the loss of power: start it with the durability power if it should"
            ));
        }
        if !self.is_clean && !is_running {
            return Some(format!(
                "{name} was not stopped but ended: nothing is lost, its next start takes longer"
            ));
        }
        None
    }
}

fn last_uses(conn: &Connection) -> rusqlite::Result<Vec<LastUse>> {
    let sql = "SELECT name, class, clean, boot_id = 'backup',
                 EXISTS(SELECT 1 FROM conn_key_map WHERE owner = node.name AND suspect <> 0)
               FROM node ORDER BY name";
    let mut select = conn.prepare(sql)?;
    let rows = select.query_map([], |row| {
        let class = match row.get::<_, u8>(1)? {
            0 => Class::Ram,
            1 => Class::Process,
            _ => Class::Power,
        };
        Ok(LastUse {
            name: row.get(0)?,
            class,
            is_clean: row.get(2)?,
            is_backup: row.get(3)?,
            is_suspect: row.get(4)?,
        })
    })?;
    rows.collect()
}

/// Of what was damaged, and of what waits for its node.
fn rows_to_look_at(conn: &Connection) -> rusqlite::Result<[u64; 2]> {
    conn.query_row("SELECT (SELECT count(*) FROM quarantine), (SELECT count(*) FROM inserted)", [], |row| {
        Ok([row.get::<_, i64>(0)?.cast_unsigned(), row.get::<_, i64>(1)?.cast_unsigned()])
    })
}
