//! What a process does with the journal that another one left: look at everything without touching it, then put the end
//! in order.

use super::error::{Damage, Fault, OpenError};
use super::{Opened, Segment, Settings, read_anchor};
use crate::folder::{Folder, Handle, UNFINISHED, read_up_to, write_all_at};
use crate::segment::{
    self, DAMAGED_END, FRAMES_AT, FrameError, Header, MARKS_AT, Mark, Marks, RESERVE, first_of, read_frame,
};
use crate::{Details, Head, Sequence, chain_name};
use std::io;
use std::sync::Arc;
use zixt_crypto::hash::Hasher;
use zixt_crypto::labels;
use zixt_types::Hash;

const CHUNK_BYTES: usize = 64 * 1024;

/// What the writer begins with.
pub(super) struct State {
    pub chain: Hash,
    pub anchored: Option<Head>,
    pub segments: Vec<Segment>,
    /// The last one.
    pub segment: Segment,
    pub reserve: bool,
    pub reserve_error: Option<String>,
    pub opened: Opened,
    /// Where the next frame goes in the last segment.
    pub end: u64,
    /// The count of its newest mark.
    pub marks: u64,
    pub sealed: bool,
    /// What the event about the recovery says, if there is one.
    pub recovered: Option<(Details, Option<Hash>)>,
    /// Records that the last segment leaves out, because damage was set aside.
    pub left_out: Option<(Sequence, Sequence)>,
}

/// What lies in the folder.
pub(super) struct Survey {
    pub anchored: Option<Head>,
    pub segments: Vec<Segment>,
    /// First records of segments that were set aside.
    pub set_aside: Vec<Sequence>,
    unfinished: Vec<String>,
    has_reserve: bool,
    end: Option<End>,
    /// Closed segments of which one mark is unreadable, and the other one.
    half_marked: Vec<(Segment, Mark)>,
}

/// The end of the last segment.
struct End {
    marks: Marks,
    head: Head,
    at: u64,
    torn: Option<Torn>,
}

struct Torn {
    bytes: u64,
    hash: Hash,
}

fn io_error(doing: &'static str) -> impl FnOnce(io::Error) -> OpenError {
    move |source| OpenError::Io { doing, source }
}

/// Puts the end of the journal in order, or begins one.
pub(super) fn recover(folder: &dyn Folder, settings: &Settings) -> Result<State, OpenError> {
    let survey = survey(folder)?;
    if let Some(damage) = survey.end_is_gone() {
        return Err(OpenError::Damaged(Box::new(damage)));
    }
    for name in &survey.unfinished {
        folder.remove(name).map_err(io_error("cleared of unfinished files"))?;
    }
    let Some((last, end)) = survey.segments.last().zip(survey.end.as_ref()) else {
        return begin(folder, settings);
    };
    for (segment, mark) in &survey.half_marked {
        let again = Mark { count: mark.count + 1, ..*mark };
        let written = again.write(&*segment.file, &segment.header).and_then(|()| segment.file.sync());
        written.map_err(io_error("put in order"))?;
    }
    let header = &last.header;
    let acknowledged = end.marks.newest;
    let from = acknowledged.map_or(FRAMES_AT, |mark| mark.end);
    let marks = put_in_order(&last.file, header, from, end).map_err(io_error("put in order"))?;
    let known = acknowledged.map_or(header.before(), |mark| mark.head);
    let unacknowledged = (end.head != known).then(|| {
        let first = if known == header.before() { header.first } else { known.sequence.next() };
        (first, end.head.sequence)
    });
    let (reserve, reserve_error) = match take_reserve(folder, settings.segment_bytes, survey.has_reserve) {
        Ok(()) => (true, None),
        Err(error) => (false, Some(error.to_string())),
    };
    let opened = Opened {
        new: false,
        head: end.head,
        missing: survey.missing(),
        unacknowledged,
        torn_bytes: end.torn.as_ref().map_or(0, |torn| torn.bytes),
        marks_damaged: end.marks.damaged + u32::try_from(survey.half_marked.len()).unwrap_or(u32::MAX),
    };
    let jumps = header.first != header.after.next() && end.head == header.before();
    Ok(State {
        chain: header.chain,
        anchored: survey.anchored,
        reserve,
        reserve_error,
        recovered: recovery(&opened, end.torn.as_ref()),
        left_out: jumps.then(|| (header.after.next(), header.first.before())),
        end: end.at,
        marks,
        sealed: acknowledged.is_some_and(|mark| mark.sealed),
        opened,
        segment: last.clone(),
        segments: survey.segments,
    })
}

/// Begins a new chain.
fn begin(folder: &dyn Folder, settings: &Settings) -> Result<State, OpenError> {
    let chain = chain_name(&settings.random);
    let head = Head::start(chain);
    let header = Header {
        size: settings.segment_bytes,
        first: Sequence(1),
        after: head.sequence,
        made_at: settings.clock.now().wall,
        chain,
        prev: head.hash,
    };
    let make = || {
        take_reserve(folder, header.size, true)?;
        make_segment(folder, header)
    };
    let segment = make().map_err(io_error("begun"))?;
    let (reserve, reserve_error) = match take_reserve(folder, header.size, false) {
        Ok(()) => (true, None),
        Err(error) => (false, Some(error.to_string())),
    };
    let opened =
        Opened { new: true, head, missing: None, unacknowledged: None, torn_bytes: 0, marks_damaged: 0 };
    Ok(State {
        chain,
        anchored: None,
        segments: vec![segment.clone()],
        segment,
        reserve,
        reserve_error,
        opened,
        end: FRAMES_AT,
        marks: 0,
        sealed: false,
        recovered: None,
        left_out: None,
    })
}

/// Makes a segment out of the reserve. Its header is durable before it has its name.
pub(super) fn make_segment(folder: &dyn Folder, header: Header) -> io::Result<Segment> {
    let file = folder.open(RESERVE)?;
    write_all_at(&*file, 0, &header.to_bytes())?;
    file.sync()?;
    let name = segment::name(header.first);
    folder.rename(RESERVE, &name)?;
    Ok(Segment { name, header, file })
}

/// Makes sure that a reserve of that length lies there, empty but for the header of a segment that never came to be.
fn take_reserve(folder: &dyn Folder, bytes: u64, look: bool) -> io::Result<()> {
    let usable = |file: &dyn Handle| -> io::Result<bool> {
        Ok(file.length()? == bytes && last_byte(file, MARKS_AT[0], bytes)?.is_none())
    };
    if look
        && let Ok(file) = folder.open(RESERVE)
        && usable(&*file)?
    {
        return Ok(());
    }
    folder.create(RESERVE, bytes).map(drop)
}

/// What was not acknowledged is written again, what is torn is emptied, and the mark moves behind it. What was read may
/// stand in the page cache only, after a failed fsync for instance; from here on it is durable. Gives the mark's count.
fn put_in_order(file: &Arc<dyn Handle>, header: &Header, from: u64, end: &End) -> io::Result<u64> {
    let mut at = from;
    while at < end.at {
        let mut bytes = vec![0; CHUNK_BYTES.min(usize::try_from(end.at - at).unwrap_or(CHUNK_BYTES))];
        let read = read_up_to(&**file, at, &mut bytes)?;
        bytes.truncate(read);
        if bytes.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        write_all_at(&**file, at, &bytes)?;
        at += bytes.len() as u64;
    }
    let mut torn = end.torn.as_ref().map_or(0, |torn| torn.bytes);
    while torn > 0 {
        let zeros = vec![0; CHUNK_BYTES.min(usize::try_from(torn).unwrap_or(CHUNK_BYTES))];
        write_all_at(&**file, at, &zeros)?;
        at += zeros.len() as u64;
        torn -= zeros.len() as u64;
    }
    file.sync()?;
    let newest = end.marks.newest;
    if end.head == header.before() && newest.is_none() {
        return Ok(0);
    }
    let mark = Mark {
        count: newest.map_or(1, |mark| mark.count + 1),
        head: end.head,
        end: end.at,
        sealed: newest.is_some_and(|mark| mark.sealed),
    };
    mark.write(&**file, header)?;
    file.sync()?;
    Ok(mark.count)
}

/// What an event has to say about what was found.
fn recovery(opened: &Opened, torn: Option<&Torn>) -> Option<(Details, Option<Hash>)> {
    let mut numbers = Vec::new();
    if let Some((first, last)) = opened.missing {
        numbers.extend([("missing_first", first.0), ("missing_last", last.0)]);
    }
    if let Some((first, last)) = opened.unacknowledged {
        numbers.extend([("unacknowledged_first", first.0), ("unacknowledged_last", last.0)]);
    }
    if opened.torn_bytes > 0 {
        numbers.push(("torn_bytes", opened.torn_bytes));
    }
    if opened.marks_damaged > 0 {
        numbers.push(("marks_damaged", u64::from(opened.marks_damaged)));
    }
    (!numbers.is_empty()).then(|| (Details::numbers(&numbers), torn.map(|torn| torn.hash)))
}

impl Survey {
    /// Where the records end.
    pub fn tail(&self) -> Option<Head> {
        self.end.as_ref().map(|end| end.head)
    }

    /// Whether the end is gone: the ledger holds more, or the last segment was set aside and nothing follows it yet.
    /// Going on from here would use numbers a second time.
    pub fn end_is_gone(&self) -> Option<Damage> {
        let (segment, last) = (self.segments.last()?, self.tail()?.sequence);
        if let Some(gone) = self.set_aside.iter().find(|gone| **gone > segment.header.first) {
            let file = format!("{}{DAMAGED_END}", segment::name(*gone));
            return Some(Damage { file, fault: Fault::NotContinued });
        }
        let anchored = self.anchored?.sequence;
        (anchored > last)
            .then(|| Damage { file: segment.name.clone(), fault: Fault::CutOff { last, anchored } })
    }

    /// Closes the last segment, so that another one can follow it.
    pub fn seal(&self) -> io::Result<()> {
        let Some((segment, end)) = self.segments.last().zip(self.end.as_ref()) else { return Ok(()) };
        let header = &segment.header;
        let from = end.marks.newest.map_or(FRAMES_AT, |mark| mark.end);
        let count = put_in_order(&segment.file, header, from, end)?;
        let mark = Mark { count: count + 1, head: end.head, end: end.at, sealed: true };
        mark.write(&*segment.file, header)?;
        segment.file.sync()
    }

    fn missing(&self) -> Option<(Sequence, Sequence)> {
        let before = self.segments.first()?.header.after;
        let anchored = self.anchored.map_or(Sequence(0), |head| head.sequence);
        let explained = before <= anchored || self.set_aside.iter().any(|first| *first <= before);
        (!explained).then_some((Sequence(1), before))
    }
}

/// Looks at everything and changes nothing. Older segments are judged by their headers and marks only; whoever reads
/// them checks every record.
pub(super) fn survey(folder: &dyn Folder) -> Result<Survey, OpenError> {
    let names = folder.list().map_err(io_error("listed"))?;
    let anchored = read_anchor(folder).map_err(io_error("read"))?;
    let ended = |end: &str| names.iter().filter_map(|name| name.strip_suffix(end)).collect::<Vec<_>>();
    let set_aside: Vec<Sequence> = ended(DAMAGED_END).into_iter().filter_map(first_of).collect();
    let unfinished = ended(UNFINISHED).into_iter().map(|name| format!("{name}{UNFINISHED}")).collect();
    let has_reserve = names.iter().any(|name| name == RESERVE);
    let mut firsts: Vec<Sequence> = names.iter().filter_map(|name| first_of(name)).collect();
    firsts.sort_unstable();
    if firsts.is_empty() && (anchored.is_some() || !set_aside.is_empty()) {
        let last = anchored.map_or(Sequence(1), |head| head.sequence);
        return Err(damaged(segment::name(Sequence(1)), Fault::Missing { first: Sequence(1), last }));
    }

    let mut segments: Vec<Segment> = Vec::new();
    let mut newest = Marks { newest: None, damaged: 0 };
    let mut half_marked = Vec::new();
    for first in firsts {
        let name = segment::name(first);
        let segment = open_segment(folder, &name, first)?;
        if let Some(before) = segments.last() {
            if before.header.chain != segment.header.chain {
                let (expected, got) = (before.header.chain, segment.header.chain);
                return Err(damaged(name, Fault::OtherChain { expected, got }));
            }
            let mark = newest.newest.filter(|mark| mark.sealed);
            let mark = mark.ok_or_else(|| damaged(before.name.clone(), Fault::NotSealed))?;
            if newest.damaged > 0 {
                half_marked.push((before.clone(), mark));
            }
            let hole = set_aside.iter().any(|gone| (before.header.first..first).contains(gone));
            continues(mark.head, &segment, hole)?;
        }
        newest = read_marks(&segment)?;
        segments.push(segment);
    }
    let end = match segments.last() {
        Some(last) => Some(walk(last)?),
        None => None,
    };
    Ok(Survey { anchored, segments, set_aside, unfinished, has_reserve, end, half_marked })
}

fn damaged(file: String, fault: Fault) -> OpenError {
    OpenError::Damaged(Box::new(Damage { file, fault }))
}

fn open_segment(folder: &dyn Folder, name: &str, first: Sequence) -> Result<Segment, OpenError> {
    let file = folder.open(name).map_err(io_error("read"))?;
    let header = Header::read(&*file).map_err(io_error("read"))?;
    let header = header.map_err(|why| damaged(name.to_owned(), Fault::Header(why)))?;
    if header.first != first {
        let why = format!("its header says that it begins with record {}", header.first);
        return Err(damaged(name.to_owned(), Fault::Header(why)));
    }
    Ok(Segment { name: name.to_owned(), header, file })
}

fn read_marks(segment: &Segment) -> Result<Marks, OpenError> {
    let marks = Marks::read(&*segment.file, &segment.header).map_err(io_error("read"))?;
    if marks.newest.is_none() && marks.damaged > 0 {
        return Err(damaged(segment.name.clone(), Fault::Marks));
    }
    Ok(marks)
}

fn continues(before: Head, segment: &Segment, hole: bool) -> Result<(), OpenError> {
    let ours = segment.header.before();
    if ours == before || (hole && ours.sequence > before.sequence) {
        return Ok(());
    }
    let fault = if ours.sequence > before.sequence {
        Fault::Missing { first: before.sequence.next(), last: ours.sequence }
    } else {
        Fault::NotNext(before.sequence)
    };
    Err(damaged(segment.name.clone(), fault))
}

/// Reads a segment to its end. What its mark covers has to be there.
fn walk(segment: &Segment) -> Result<End, OpenError> {
    let header = &segment.header;
    let fault = |fault| damaged(segment.name.clone(), fault);
    let marks = read_marks(segment)?;
    let promised = marks.newest.map_or(FRAMES_AT, |mark| mark.end);
    let mut head = header.before();
    let mut at = FRAMES_AT;
    loop {
        if at >= promised {
            if let Some(mark) =
                marks.newest.filter(|mark| at != mark.end && head.sequence < mark.head.sequence)
            {
                return Err(fault(Fault::OtherEnd(mark.head.sequence)));
            }
            if let Some(mark) = marks.newest.filter(|mark| at == mark.end && head != mark.head) {
                return Err(fault(Fault::OtherEnd(mark.head.sequence)));
            }
        }
        let expected = if at == FRAMES_AT { header.first } else { head.sequence.next() };
        match read_frame(&*segment.file, header.chain, at, header.size) {
            Ok(frame) if frame.record.sequence == expected && frame.record.prev == head.hash => {
                if at < promised && frame.next > promised {
                    return Err(fault(Fault::OtherEnd(frame.record.sequence)));
                }
                head = frame.record.head();
                at = frame.next;
            }
            Ok(_) if at < promised => return Err(fault(Fault::NotLinked(expected))),
            Err(FrameError::Broken(why)) if at < promised => {
                return Err(fault(Fault::Record { sequence: expected, why }));
            }
            Ok(_) | Err(FrameError::Broken(_)) => break,
            Err(FrameError::Io(source)) => return Err(OpenError::Io { doing: "read", source }),
        }
    }
    let torn = torn(&*segment.file, at, header.size).map_err(io_error("read"))?;
    Ok(End { marks, head, at, torn })
}

/// What lies behind the last record.
fn torn(file: &dyn Handle, from: u64, size: u64) -> io::Result<Option<Torn>> {
    let Some(last) = last_byte(file, from, size)? else { return Ok(None) };
    let bytes = last + 1 - from;
    let mut hasher = Hasher::new(labels::AUDIT_TORN);
    chunks(file, from, last + 1, |_, chunk| {
        hasher.part(chunk);
    })?;
    Ok(Some(Torn { bytes, hash: hasher.finish() }))
}

/// The last byte in a range that is not zero.
fn last_byte(file: &dyn Handle, from: u64, to: u64) -> io::Result<Option<u64>> {
    let mut last = None;
    chunks(file, from, to, |at, chunk| {
        if let Some(place) = chunk.iter().rposition(|byte| *byte != 0) {
            last = Some(at + place as u64);
        }
    })?;
    Ok(last)
}

fn chunks(file: &dyn Handle, from: u64, to: u64, mut each: impl FnMut(u64, &[u8])) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut at = from;
    while at < to {
        let wanted = CHUNK_BYTES.min(usize::try_from(to - at).unwrap_or(CHUNK_BYTES));
        let read = read_up_to(file, at, &mut buffer[..wanted])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        each(at, &buffer[..read]);
        at += read as u64;
    }
    Ok(())
}
