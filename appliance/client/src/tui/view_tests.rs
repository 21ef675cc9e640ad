use super::*;
use crate::tui::model::Alarm;
use crate::tui::testing::{message, model};
use insta::assert_snapshot;
use ratatui::Terminal;
use ratatui::backend::TestBackend;

fn drawn(model: &Model) -> String {
    let mut terminal = Terminal::new(TestBackend::new(model.size.0, model.size.1)).unwrap();
    terminal.draw(|frame| draw(frame, model)).unwrap();
    terminal.backend().to_string()
}

#[test]
fn normal() {
    let mut model = model(80, 24);
    model.current_mut().unwrap().input.insert("Thank you");
    assert_snapshot!(drawn(&model), @r#"
    " bob | ada in zixt lab                                                          "
    " LAB NETWORK: not for production                                                "
    "> bob                 │--- 2026-11-22 (UTC) ---                                 "
    "  night shift (3)     │14:00 *  ada added bob                                   "
    "                      │14:01 ✓✓ ada: Hello, Bob. Did the pumps arrive?          "
    "                      │14:02    bob: They did, all twelve. 日本 sent the papers," Hidden by multi-width symbols: [(60, " "), (62, " ")]
    "                      │         too; they are in the blue folder.               "
    "                      │14:03 ✓  ada: Good.                                      "
    "                      │                                                         "
    "                      │                                                         "
    "                      │                                                         "
    "                      │                                                         "
    "                      │                                                         "
    "                      │                                                         "
    "                      │                                                         "
    "                      │                                                         "
    "                      │                                                         "
    "                      │                                                         "
    "                      │                                                         "
    "                      │                                                         "
    "                      │                                                         "
    "-- On the record: what you send is signed by you and kept in the ledger. -------"
    "> Thank you                                                                     "
    " connected | epoch 4 | 2 people: ada, bob                                F1 help"
    "#);
}

#[test]
fn narrow() {
    assert_snapshot!(drawn(&model(40, 12)), @r#"
    " bob | ada in zixt lab                  "
    " LAB NETWORK: not for production        "
    "14:00 *  ada added bob                  "
    "14:01 ✓✓ ada: Hello, Bob. Did the pumps "
    "         arrive?                        "
    "14:02    bob: They did, all twelve. 日本" Hidden by multi-width symbols: [(37, " "), (39, " ")]
    "         sent the papers, too; they are "
    "         in the blue folder.            "
    "14:03 ✓  ada: Good.                     "
    "-- On the record: signed, kept. --------"
    ">                                       "
    " connected | epoch 4 | 2 peopl.. F1 help"
    "#);
}

#[test]
fn narrow_list() {
    let mut model = model(40, 12);
    model.list = true;
    assert_snapshot!(drawn(&model), @r#"
    " bob | ada in zixt lab                  "
    " LAB NETWORK: not for production        "
    "> bob                                   "
    "  night shift (3)                       "
    "                                        "
    "                                        "
    "                                        "
    "                                        "
    "                                        "
    "-- On the record: signed, kept. --------"
    ">                                       "
    " connected | epoch 4 | 2 peopl.. F1 help"
    "#);
}

#[test]
fn alarm() {
    let mut model = model(80, 24);
    model.alarms.push(Alarm {
        what: "[bob] the appliance showed this device another history than it showed bob (height 812)".into(),
        advice: "Stop. Keep this device. Run: zixt alarms --export-fork FILE".into(),
    });
    assert_snapshot!(drawn(&model), @r#"
    " bob | ada in zixt lab                                                          "
    " LAB NETWORK: not for production                                                "
    " !!! ALARM (1): [bob] the appliance showed this device another history than it  "
    " showed bob (height 812)                                                        "
    " !!! F2: what to do                                                             "
    "> bob                 │--- 2026-11-22 (UTC) ---                                 "
    "  night shift (3)     │14:00 *  ada added bob                                   "
    "                      │14:01 ✓✓ ada: Hello, Bob. Did the pumps arrive?          "
    "                      │14:02    bob: They did, all twelve. 日本 sent the papers," Hidden by multi-width symbols: [(60, " "), (62, " ")]
    "                      │         too; they are in the blue folder.               "
    "                      │14:03 ✓  ada: Good.                                      "
    "                      │                                                         "
    "                      │                                                         "
    "                      │                                                         "
    "                      │                                                         "
    "                      │                                                         "
    "                      │                                                         "
    "                      │                                                         "
    "                      │                                                         "
    "                      │                                                         "
    "                      │                                                         "
    "-- On the record: what you send is signed by you and kept in the ledger. -------"
    ">                                                                               "
    " connected | epoch 4 | 2 people: ada, bob                                F1 help"
    "#);
    model.overlay = Some(Overlay::Alarms);
    assert_snapshot!(drawn(&model), @r#"
    " bob | ada in zixt lab                                                          "
    " LAB NETWORK: not for production                                                "
    " !!! ALARM (1): [bob] the appliance showed this device another history than it  "
    " showed bob (height 812)                                                        "
    " !!! F2: what to do                                                             "
    "!!! 1. [bob] the appliance showed this device another history than it showed bob"
    " (height 812)                                                                   "
    "    Stop. Keep this device. Run: zixt alarms --export-fork FILE                 "
    "                                                                                "
    "Esc closes this; the alarm stays.                                               "
    "                                                                                "
    "                                                                                "
    "                                                                                "
    "                                                                                "
    "                                                                                "
    "                                                                                "
    "                                                                                "
    "                                                                                "
    "                                                                                "
    "                                                                                "
    "                                                                                "
    "                                                                                "
    "                                                                                "
    " connected | epoch 4 | 2 people: ada, bob                                F1 help"
    "#);
}

#[test]
fn offline_with_queued() {
    let mut model = model(80, 16);
    model.link = Link::Away("connection refused".into());
    model.looks = Looks { colour: false, unicode: false };
    let thread = model.current_mut().unwrap();
    thread.head.queued = 2;
    thread.head.unverified = vec!["bob".into()];
    thread.put(message(4, "ada", Mark::Sent, "Is anybody there?"));
    thread.put(message(5, "ada", Mark::Queued, "I write on\nwithout you."));
    assert_snapshot!(drawn(&model), @r#"
    " bob | ada in zixt lab                                                          "
    " LAB NETWORK: not for production                                                "
    "> bob 2..             |--- 2026-11-22 (UTC) ---                                 "
    "  night shift (3)     |14:00 *  ada added bob                                   "
    "                      |14:01 ++ ada: Hello, Bob. Did the pumps arrive?          "
    "                      |14:02    bob: They did, all twelve. 日本 sent the papers," Hidden by multi-width symbols: [(60, " "), (62, " ")]
    "                      |         too; they are in the blue folder.               "
    "                      |14:03 +  ada: Good.                                      "
    "                      |14:04 -> ada: Is anybody there?                          "
    "                      |14:05 .. ada: I write on                                 "
    "                      |         without you.                                    "
    "                      |                                                         "
    "                      |                                                         "
    "-- On the record: what you send is signed by you and kept in the ledger. -------"
    ">                                                                               "
    " AWAY, 2 queued | connection refused | epoch 4 | not verified: bob | 2.. F1 help"
    "#);
}

#[test]
fn help() {
    let mut model = model(80, 24);
    model.overlay = Some(Overlay::Help);
    assert_snapshot!(drawn(&model), @r#"
    " bob | ada in zixt lab                                                          "
    " LAB NETWORK: not for production                                                "
    "Marks                                                                           "
    "  …   queued on this device                                                     "
    "  →   sent, not answered yet                                                    "
    "  ✓   recorded in the ledger, proof checked                                     "
    "  ✓✓  seen by everybody's client (known once they write)                        "
    "  !!  not sent; the reason stands below it                                      "
    "Keys                                                                            "
    "  Enter                 send                                                    "
    "  Alt-Enter, Ctrl-J     new line                                                "
    "  Tab, Shift-Tab        next, previous conversation (also Ctrl-N, Ctrl-P)       "
    "  F3                    list of conversations on a narrow terminal              "
    "  PgUp, PgDn, Up, Down  scroll; older messages are loaded                       "
    "  Ctrl-Home, Ctrl-End   to the top, to the latest                               "
    "  Ctrl-W, Ctrl-U        remove a word, everything before                        "
    "  F2                    alarms and what to do                                   "
    "  F1, ?                 this help; Esc closes it                                "
    "  Ctrl-C, Ctrl-Q        end                                                     "
    "What you send is signed by this device and recorded for good.                   "
    "                                                                                "
    "                                                                                "
    "                                                                                "
    " connected | epoch 4 | 2 people: ada, bob                                F1 help"
    "#);
}

#[test]
fn without_colour_nothing_has_a_colour() {
    let mut model = model(80, 24);
    model.looks.colour = false;
    model.alarms.push(Alarm { what: "fork".into(), advice: "stop".into() });
    let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
    terminal.draw(|frame| draw(frame, &model)).unwrap();
    let cells = terminal.backend().buffer().content();
    assert!(cells.iter().all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset));
}

#[test]
fn marks_differ_without_colour_and_have_two_columns() {
    for unicode in [true, false] {
        let looks = Looks { colour: false, unicode };
        let marks = [Mark::None, Mark::Queued, Mark::Sent, Mark::Recorded, Mark::Read, Mark::Refused];
        let mut seen: Vec<&str> = marks.iter().map(|mark| glyph(*mark, looks)).collect();
        assert!(seen.iter().all(|sign| columns(sign) == 2));
        assert!(unicode || seen.iter().all(|sign| sign.is_ascii()));
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), marks.len());
    }
}

#[test]
fn dates() {
    assert_eq!(clock(0), ("1970-01-01".into(), "00:00".into()));
    assert_eq!(clock(1_709_164_799_000), ("2024-02-28".into(), "23:59".into()));
    assert_eq!(clock(1_709_164_800_000).0, "2024-02-29");
    assert_eq!(clock(4_102_444_800_000).0, "2100-01-01");
}
