//! The statements of a turn: one a kind, all sent at once.

use liner_proto::effect::StoreFault;
use tokio_postgres::types::Type;

use crate::buffer::Buffer;
use crate::columns::{Columns, of};
use crate::error::Failure;
use crate::link::{Link, Step, Stumbled};
use crate::rows::{Cursors, Rows};
use crate::statements::{CLOSE, FENCE, create};
use crate::text::to_column;

/// Which turn is written, by whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark<'a> {
    /// The node, as itself and as columns have it.
    pub(crate) owner: &'a str,
    pub(crate) name: &'a str,
    pub(crate) token: i64,
    pub(crate) instance: i64,
    /// The turn before.
    pub(crate) turn: i64,
}

/// What goes before the statements of the buffer, and behind them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame<'a> {
    /// Begins the transaction, if it is not open.
    pub(crate) begin: Option<&'a str>,
    pub(crate) commits: bool,
}

/// Where a flush failed: `is_at_commit` if the commit may have taken place.
#[derive(Debug)]
pub(crate) struct Fallen {
    pub(crate) failure: Failure,
    pub(crate) is_at_commit: bool,
}

/// Writes what stands in the buffer, and commits if the frame says so.
pub(crate) fn flush(
    link: &Link,
    mark: Mark<'_>,
    frame: Frame<'_>,
    buffer: &Buffer,
    rows: &mut Rows,
    cursors: &Cursors,
) -> Result<(), Fallen> {
    let mut frame = frame;
    if !buffer.created.is_empty() || !buffer.closed.is_empty() {
        open_and_close(link, mark, frame, buffer, rows)?;
        frame.begin = None;
    }
    let columns = Columns::new(mark, buffer, rows, cursors);
    let next = mark.turn + 1;
    let mut steps: Vec<Step<'_>> = Vec::with_capacity(16);
    begin(link, &mark, &next, frame, &mut steps);
    columns.steps(link, &mark, &mut steps);
    if frame.commits {
        steps.push(link.plain("COMMIT"));
    }
    let commit = if frame.commits { steps.len() - 1 } else { usize::MAX };
    run(link, steps, commit)
}

fn run(link: &Link, steps: Vec<Step<'_>>, commit: usize) -> Result<(), Fallen> {
    let commits = commit != usize::MAX;
    link.pipeline(steps).map(drop).map_err(|Stumbled { step, failure }| {
        // A word of the server about an earlier step means that it did not come to the commit.
        let answered = matches!(&failure, Failure::Postgres(error) if error.code().is_some());
        Fallen { is_at_commit: commits && (!answered || (step == commit && failure.breaks())), failure }
    })
}

fn begin<'a>(link: &'a Link, mark: &'a Mark<'_>, next: &'a i64, frame: Frame<'a>, steps: &mut Vec<Step<'a>>) {
    if let Some(begin) = frame.begin {
        steps.push(link.plain(begin));
        let Mark { name, token, turn, instance, .. } = mark;
        let [token, turn, next, instance] =
            [token, turn, next, instance].map(|number| of(number, Type::INT8));
        steps.push(link.step(FENCE, [of(name, Type::TEXT), token, turn, next, instance]));
    }
}

/// Closes queues and makes new ones, which get their keys.
fn open_and_close(
    link: &Link,
    mark: Mark<'_>,
    frame: Frame<'_>,
    buffer: &Buffer,
    rows: &mut Rows,
) -> Result<(), Fallen> {
    let next = mark.turn + 1;
    let (keys, composites): (Vec<i32>, Vec<&str>) =
        buffer.closed.iter().map(|(_, key, composite)| (*key, &**composite)).unzip();
    let create = create();
    let new: Vec<_> = buffer
        .created
        .iter()
        .filter_map(|life| {
            let row = rows.get(*life)?;
            let epoch = row.stored_epoch.0.cast_signed();
            Some((*life, to_column(&row.composite), i16::from(row.kind), to_column(&row.name), epoch))
        })
        .collect();
    let mut steps = Vec::new();
    begin(link, &mark, &next, frame, &mut steps);
    if !keys.is_empty() {
        steps.push(link.step(CLOSE, [of(&keys, Type::INT4_ARRAY), of(&composites, Type::TEXT_ARRAY)]));
    }
    let before = steps.len();
    for (_, composite, kind, name, epoch) in &new {
        steps.push(link.step(
            &create,
            [
                of(composite, Type::TEXT),
                of(&mark.name, Type::TEXT),
                of(kind, Type::INT2),
                of(name, Type::TEXT),
                of(epoch, Type::INT8),
            ],
        ));
    }
    let fallen = |failure| Fallen { failure, is_at_commit: false };
    let answers = link.pipeline(steps).map_err(|stumbled| fallen(stumbled.failure))?;
    let lives: Vec<_> = new.iter().map(|(life, ..)| *life).collect();
    for (life, answer) in lives.into_iter().zip(answers.iter().skip(before)) {
        let key = answer.first().and_then(|row| row.try_get::<_, i32>(0).ok());
        let key = key.ok_or_else(|| fallen(StoreFault::Corrupt.into()))?;
        if let Some(row) = rows.get_mut(life) {
            row.key = key;
        }
    }
    Ok(())
}
