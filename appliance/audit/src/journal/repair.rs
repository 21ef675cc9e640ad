//! Going on after damage. An officer decides that; the appliance alone stays closed.

use super::error::{Fault, OpenError};
use super::recover::{make_segment, survey};
use super::{Settings, read_anchor};
use crate::folder::{Folder, Handle};
use crate::segment::{
    self, DAMAGED_END, FRAME_HEAD_BYTES, FRAMES_AT, FrameError, Header, Marks, RESERVE, first_of, read_frame,
};
use crate::{Head, Sequence, chain_name, limits};
use std::io;
use zixt_types::Hash;

/// What was set aside.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SetAside {
    /// The damaged files, which are kept under these names.
    pub kept_as: Vec<String>,
    /// What was wrong, in the order in which it was found.
    pub faults: Vec<String>,
    /// Where the journal goes on, if it had to begin a segment. The numbers before it that are not in a segment are
    /// missing for good, and every later check says so.
    pub goes_on_at: Option<Sequence>,
}

/// Renames the damaged segments of a journal that is not open, so that it can be opened again. Nothing is deleted and
/// nothing is changed in them. The chain goes on behind the last good record with a gap in its numbers, which are never
/// used again; the first events say so. Does nothing if the journal is not damaged.
///
/// # Errors
/// See [`OpenError`].
pub fn set_aside(folder: &dyn Folder, settings: &Settings) -> Result<SetAside, OpenError> {
    let mut done = SetAside { kept_as: Vec::new(), faults: Vec::new(), goes_on_at: None };
    loop {
        let damage = match survey(folder) {
            Ok(survey) => {
                if let Some(damage) = survey.end_is_gone() {
                    done.faults.push(damage.to_string());
                    survey.seal().map_err(io_error("closed"))?;
                    let chain = survey.segments.last().map(|last| last.header.chain);
                    go_on(folder, settings, &mut done, survey.tail(), chain)?;
                }
                return Ok(done);
            }
            Err(OpenError::Damaged(damage)) => damage,
            Err(other) => return Err(other),
        };
        done.faults.push(damage.to_string());
        let names = folder.list().map_err(io_error("listed"))?;
        if !names.contains(&damage.file) {
            // No segment is left at all. What the ledger holds is the last thing that is known.
            let anchored = read_anchor(folder).map_err(io_error("read"))?;
            go_on(folder, settings, &mut done, anchored, None)?;
            return Ok(done);
        }
        let kept = if let Fault::Missing { first, .. } = damage.fault {
            // The segment behind the hole is whole. What is missing gets a note in its place.
            let note = free_name(&names, &segment::name(first));
            folder.replace(&note, b"missing").map_err(io_error("set aside"))?;
            note
        } else {
            let kept = free_name(&names, &damage.file);
            folder.rename(&damage.file, &kept).map_err(io_error("set aside"))?;
            kept
        };
        done.kept_as.push(kept);
    }
}

fn io_error(doing: &'static str) -> impl FnOnce(io::Error) -> OpenError {
    move |source| OpenError::Io { doing, source }
}

/// The first record of a segment that was set aside under that name.
fn first_of_kept(name: &str) -> Option<Sequence> {
    name.split_once(DAMAGED_END).and_then(|(segment, _)| first_of(segment))
}

fn free_name(names: &[String], segment: &str) -> String {
    let plain = format!("{segment}{DAMAGED_END}");
    let numbered = (2..).map(|number: u32| format!("{plain}.{number}"));
    let free = std::iter::once(plain.clone()).chain(numbered).find(|name| !names.contains(name));
    free.unwrap_or(plain)
}

/// Begins a segment behind everything that was ever acknowledged. A crash before it is there is noticed at the next
/// open, and this is done again.
fn go_on(
    folder: &dyn Folder,
    settings: &Settings,
    done: &mut SetAside,
    tail: Option<Head>,
    chain: Option<Hash>,
) -> Result<(), OpenError> {
    let kept = look(folder).map_err(io_error("read"))?;
    let anchored = read_anchor(folder).map_err(io_error("read"))?;
    let chain = chain.or(kept.chain).unwrap_or_else(|| chain_name(&settings.random));
    let before = tail.unwrap_or(Head::start(chain));
    let highest = anchored.map_or(Sequence(0), |head| head.sequence).max(kept.highest).max(before.sequence);
    // A group beyond the newest mark may have been acknowledged as well; its numbers must not come back.
    let first = Sequence(highest.0.saturating_add(limits::GROUP_EVENTS_MAX as u64 + 1));
    let header = Header {
        size: settings.segment_bytes,
        first,
        after: before.sequence,
        made_at: settings.clock.now().wall,
        chain,
        prev: before.hash,
    };
    folder.create(RESERVE, settings.segment_bytes).map_err(io_error("continued"))?;
    make_segment(folder, header).map_err(io_error("continued"))?;
    done.goes_on_at = Some(first);
    Ok(())
}

struct Known {
    highest: Sequence,
    chain: Option<Hash>,
}

/// What the files that were set aside still tell.
fn look(folder: &dyn Folder) -> io::Result<Known> {
    let mut known = Known { highest: Sequence(0), chain: None };
    for name in folder.list()? {
        let Some(first) = first_of_kept(&name) else { continue };
        let file = folder.open(&name)?;
        // A segment cannot hold more records than this, whatever its header says or does not say any more.
        let bound = Sequence(first.0.saturating_add(file.length()? / FRAME_HEAD_BYTES as u64));
        let told = match Header::read(&*file)? {
            Ok(header) => {
                known.chain = known.chain.or(Some(header.chain));
                let mark = Marks::read(&*file, &header)?.newest.map(|mark| mark.head.sequence);
                mark.max(Some(highest_frame(&*file, &header)?)).unwrap_or(first)
            }
            Err(_) => bound,
        };
        known.highest = known.highest.max(first).max(told.min(bound));
    }
    Ok(known)
}

fn highest_frame(file: &dyn Handle, header: &Header) -> io::Result<Sequence> {
    let mut highest = Sequence(0);
    let mut at = FRAMES_AT;
    while at < header.size {
        match read_frame(file, header.chain, at, header.size) {
            Ok(frame) => {
                highest = highest.max(frame.record.sequence);
                at = frame.next;
            }
            Err(FrameError::Broken(_)) => at += 8,
            Err(FrameError::Io(error)) => return Err(error),
        }
    }
    Ok(highest)
}
